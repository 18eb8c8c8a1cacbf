"""Logs of events for the worker tests, and what a clean fold makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from support import eventually

from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot
from feature_store.writes import Position
from onebar.evidence.text import clean_video
from onebar.settings import Settings
from stream.events import (
    Click,
    Deletion,
    Engagement,
    Event,
    Exposure,
    Removal,
    RuleChange,
    Search,
    ShownQuery,
    Video,
)
from stream.events.fold import fold
from stream.kafka.consumer import RecordConsumer, end_offsets, group_lag
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.producer import EventProducer
from stream.kafka.records import Record
from stream.kafka.topics import ensure_topics, partition_counts

NOW = 1_700_000_000.0
QUERIES = ["running shoes", "跑步鞋", "trail shoes", "red boots", "socks", "雨靴"]


def make_events(count: int, *, videos: int = 12, users: int = 30, seed: int = 7) -> list[Event]:
    """A deterministic mix of every type that changes the state, some events twice."""
    rng = random.Random(seed)
    events: list[Event] = [
        Video(event_id=f"v{i}", ts=NOW, video_id=f"v{i}", caption=f"red boots number {i}")
        for i in range(videos)
    ]
    while len(events) < count:
        i = len(events)
        common = {"event_id": f"e{i}", "ts": NOW + i * 0.5}
        pair = {"video_id": f"v{rng.randrange(videos)}", "user_id": f"u{rng.randrange(users)}"}
        query = rng.choice(QUERIES)
        event: Event
        match rng.randrange(5):
            case 0:
                event = Search(**common, **pair, query=query)
            case 1:
                event = Exposure(**common, **pair, queries=[ShownQuery(q) for q in QUERIES[:3]])
            case 2:
                event = Click(**common, **pair, query=query)
            case 3:
                event = Engagement(**common, **pair, query=query, kind="cart")
            case _:
                event = rng.choice(events)
        events.append(event)
    return events


def decisions(count: int, *, videos: int = 12, users: int = 30, seed: int = 11) -> list[Event]:
    """Rules made, changed and taken back, videos gone and come again, users forgotten: in no order
    of their times, and some events twice."""
    rng = random.Random(seed)
    events: list[Event] = []
    while len(events) < count:
        common = {"event_id": f"d{len(events)}", "ts": NOW + rng.randrange(2 * count) * 0.5}
        video_id = f"v{rng.randrange(videos)}"
        event: Event
        match rng.randrange(6):
            case 0 | 1:
                event = RuleChange(
                    **common,
                    rule_id=f"r{rng.randrange(30)}",
                    action=rng.choice(["block", "allow", "learn", "pin"]),
                    query=rng.choice(QUERIES),
                    video_id=video_id,
                )
            case 2:
                event = RuleChange(**common, rule_id=f"r{rng.randrange(30)}", action="remove")
            case 3:
                event = Removal(**common, video_id=video_id)
            case 4:
                event = Deletion(**common, user_id=f"u{rng.randrange(users)}")
            case _:
                event = Video(
                    **common,
                    video_id=video_id,
                    caption=f"come again {len(events)}",
                    sensitive=rng.random() < 0.3,
                )
        events += [event] * rng.choice([1, 1, 2])
    return events


def folded(events: Sequence[Event], settings: Settings) -> StateSnapshot:
    """The state of one clean pass."""
    store = MemoryStore(settings.policy)
    for offset, event in enumerate(events):
        for write in fold(event, clean_video):
            store.apply(write, Position(event.topic, 0, offset))
    return store.snapshot()


async def make_topics(settings: Settings) -> list[str]:
    """Create those of the test's topics that are missing; their names."""
    return await ensure_topics(settings)


async def add_partitions(settings: Settings, topic: str, count: int) -> None:
    """Have the topic have so many, and wait until the broker shows them."""
    name = settings.topic_prefix + topic
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_partitions({name: NewPartitions(total_count=count)})
    await admin.close()

    async def shown() -> bool:
        return (await partition_counts(settings))[name] == count

    await eventually(shown, what="the new partitions")


def producer(settings: Settings) -> EventProducer:
    """A producer on the test's topics."""
    return EventProducer(settings)


async def lag(settings: Settings, *topics: str, generator: bool = False) -> int:
    """What the stream workers (or the generators) have not committed of these topics."""
    counts = await partition_counts(settings)
    names = [settings.topic_prefix + topic for topic in topics]
    partitions = [(name, p) for name in names for p in range(counts.get(name, 0))]
    group = generator_group(settings) if generator else stream_group(settings)
    return await group_lag(settings, group, partitions)


async def records(settings: Settings, *topics: str) -> list[Record]:
    """What has come to these topics until now, with its places and timestamps; of one partition in
    its order."""
    names = [settings.topic_prefix + topic for topic in topics]
    partitions = [(name, p) for name in names for p in range(settings.partitions)]
    count = sum((await end_offsets(settings, partitions)).values())
    consumer = RecordConsumer(settings, topics, group=None, max_records=500, alone=True)
    await consumer.start()
    try:
        found: list[Record] = []
        while len(found) < count:
            found += await consumer.fetch(1.0)
        return found
    finally:
        await consumer.stop()


async def values(settings: Settings, topic: str) -> list[bytes]:
    """What has come to a topic until now; of one partition in its order."""
    return [record.value for record in await records(settings, topic)]
