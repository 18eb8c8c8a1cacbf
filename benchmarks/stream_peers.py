"""What `benchmarks/stream_worker.py` compares with. Prints `events seconds processor-seconds` as it
goes: monotonic seconds, and the processor time of the whole process.

python benchmarks/stream_peers.py faust|quix      # servers and names as ONEBAR_* variables
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlparse

EVERY = 500
TOPICS = ("onebar.videos", "onebar.behaviors")
BOOTSTRAP = os.environ["ONEBAR_KAFKA_BOOTSTRAP"]
PREFIX = os.environ["ONEBAR_TOPIC_PREFIX"]
GROUP = os.environ["ONEBAR_CONSUMER_GROUP"]


class Counter:
    def __init__(self) -> None:
        self.events = 0
        self._due = 0

    def add(self, count: int) -> None:
        self.events += count
        if self.events >= self._due:
            self._due = self.events + EVERY
            self.say()

    def say(self) -> None:
        print(self.events, time.monotonic(), time.process_time(), flush=True)


def faust() -> None:
    """Receives batches of raw records and drops them."""
    import asyncio

    import faust

    class App(faust.App):
        def _create_directories(self) -> None:
            """None: there are no tables."""

    app = App(
        GROUP,
        broker=";".join(f"kafka://{host}" for host in BOOTSTRAP.split(",")),
        store="memory://",
        web_enabled=False,
        autodiscover=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=2000,
        broker_max_poll_records=500,
    )
    seen = Counter()
    for name in TOPICS:
        topic = app.topic(
            PREFIX + name, key_type=bytes, key_serializer="raw", value_type=bytes,
            value_serializer="raw",
        )  # fmt: skip

        async def receive(stream: Any) -> Any:
            async for batch in stream.take(500, within=0.05):
                seen.add(len(batch))
                yield

        app.agent(topic, name=f"{name}-agent")(receive)

    async def run() -> None:
        app.finalize()
        await app.maybe_start()
        while True:
            await asyncio.sleep(0.2)
            seen.say()

    asyncio.run(run())


def quix() -> None:
    """Anchors of each video counted in quix-streams' state, and written to Redis on each change."""
    import threading

    from quixstreams import Application
    from quixstreams.sinks.community.redis import RedisSink

    weights = {"search": 1.0, "click": 2.0, "engagement": 2.0}
    seen = Counter()
    address = urlparse(os.environ["ONEBAR_REDIS_URL"])
    state_dir = os.path.join(os.environ.get("TMPDIR", "/tmp"), GROUP)
    app = Application(
        broker_address=BOOTSTRAP,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        state_dir=state_dir,
        use_changelog_topics=False,
        loglevel="ERROR",
    )

    def fold(event: dict[str, Any], state: Any) -> dict[str, Any]:
        anchors = state.get("anchors", default={})
        if event["type"] in weights:
            anchors[event["query"]] = anchors.get(event["query"], 0.0) + weights[event["type"]]
            state.set("anchors", anchors)
        return {"video_id": event["video_id"], "anchors": anchors}

    def count(event: Any) -> Any:
        seen.add(1)
        return event

    videos = app.dataframe(app.topic(PREFIX + TOPICS[0], value_deserializer="json"))
    behaviors = app.dataframe(app.topic(PREFIX + TOPICS[1], value_deserializer="json"))

    def sink(name: str) -> RedisSink:
        return RedisSink(
            host=str(address.hostname),
            port=int(address.port or 6379),
            db=0,
            value_serializer=json.dumps,
            key_serializer=lambda key, value: f"{GROUP}:{name}:{key}",
        )

    videos.apply(count).sink(sink("text"))
    behaviors = behaviors.apply(count).filter(lambda event: "video_id" in event)
    behaviors.apply(fold, stateful=True).sink(sink("anchors"))

    def keep_saying() -> None:
        while True:
            time.sleep(0.2)
            seen.say()

    threading.Thread(target=keep_saying, daemon=True).start()
    app.run()


if __name__ == "__main__":
    {"faust": faust, "quix": quix}[sys.argv[1]]()
