"""A feed of your own straight into Kafka, by OneBar's own producer.

    ONEBAR_KAFKA_BOOTSTRAP=127.0.0.1:9092 python examples/feed_over_kafka.py

The producer picks each event's topic and key and returns once the brokers have them. Any other
Kafka client does as well: docs/connect-your-feed.md says which topic and key an event wants.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from onebar.settings import Settings
from stream.events import Event, Impression, Search, Video
from stream.kafka.producer import EventProducer


def events(video_id: str, user_id: str) -> list[Event]:
    """A new video, a viewer who searched after it, and the next impression."""
    now = time.time()
    return [
        Video(
            event_id=str(uuid.uuid4()),
            ts=now,
            video_id=video_id,
            title="How I make cold brew at home",
            item_title="cold brew coffee maker, 1 litre, glass",
            category="kitchen",
        ),
        Search(
            event_id=str(uuid.uuid4()),
            ts=now,
            user_id=user_id,
            video_id=video_id,
            query="cold brew coffee maker",
        ),
        Impression(event_id=str(uuid.uuid4()), ts=now, video_id=video_id, user_id=user_id),
    ]


async def main() -> None:
    settings = Settings()
    sent = events(f"video-{uuid.uuid4().hex[:8]}", "user-1")
    async with EventProducer(settings) as producer:
        await producer.send(sent)
    print(f"Kafka has {len(sent)} events about {sent[0].key}")


if __name__ == "__main__":
    asyncio.run(main())
