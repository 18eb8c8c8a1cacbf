"""The archive of real topics: exactly what was sent, also when its writer is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from stream_fixtures import make_events
from support import eventually, workers

from onebar.settings import Settings
from stream.archive.card import ArchiveInUseError
from stream.archive.follow import archive_topics
from stream.archive.reader import open_archive
from stream.archive.writer import ArchiveWriter
from stream.events import BEHAVIORS, Impression
from stream.producer import EventProducer
from stream.topics import TopicError, ensure_topics

pytestmark = pytest.mark.integration


async def make_topics(settings: Settings) -> None:
    await ensure_topics(
        settings.kafka_bootstrap, prefix=settings.topic_prefix, partitions=settings.partitions
    )


def producer_of(settings: Settings) -> EventProducer:
    return EventProducer(
        settings.kafka_bootstrap,
        prefix=settings.topic_prefix,
        idempotent=settings.idempotent_producer,
    )


def archived(directory: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in directory.rglob("*.parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


async def archive_once(settings: Settings, out: Path) -> int:
    with ArchiveWriter(out) as writer:
        return await archive_topics(settings, writer, stop=asyncio.Event())


async def test_everything_that_was_sent_is_there_once(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    events = [
        *make_events(300),
        *(Impression(event_id=f"i{n}", ts=1_700_000_000.0, video_id="v1") for n in range(50)),
    ]
    producer = producer_of(settings)
    await producer.start()
    try:
        await producer.send(events[:200])
        await producer.send_raw(BEHAVIORS, b"v1", b'{"type": "poison')
        assert await archive_once(settings, tmp_path / "a") == 201
        await producer.send(events[200:])
        assert await archive_once(settings, tmp_path / "a") == len(events) - 200
        assert await archive_once(settings, tmp_path / "a") == 0
    finally:
        await producer.stop()
    rows = archived(tmp_path / "a")
    ids = Counter(row["event_id"] for row in rows if "event_id" in row)
    assert ids == Counter(event.event_id for event in events)  # redelivered ones twice
    assert [row["value"] for row in rows if "value" in row and "reason" in row] == [
        b'{"type": "poison'
    ]
    counts = open_archive(tmp_path / "a").card.counts
    assert counts == {**Counter(event.type for event in events), "invalid": 1}


async def test_a_killed_follower_leaves_each_record_once(
    settings: Settings, tmp_path: Path
) -> None:
    await make_topics(settings)
    events = [
        Impression(event_id=f"i{n}", ts=1_700_000_000.0 + n, video_id=f"v{n % 9}")
        for n in range(900)
    ]
    out = tmp_path / "a"
    command = ["archive", "--out", str(out), "--follow", "--flush-s", "0.2", "--flush-rows", "40"]

    def count() -> int:
        return sum(open_archive(out).card.counts.values()) if (out / "archive.json").exists() else 0

    producer = producer_of(settings)
    await producer.start()
    try:
        with workers(settings, tmp_path) as started:
            for start in (0, 300, 600):
                sending = asyncio.create_task(producer.send(events[start : start + 300]))
                child = started.start(*command)
                await eventually(lambda start=start: count() > start + 50)
                started.kill(child)
                await sending
            child = started.start(*command)
            events.append(Impression(event_id="last", ts=1_700_000_000.0, video_id="v"))
            await producer.send(events[-1:])
            await eventually(lambda: count() == 901)
            with pytest.raises(ArchiveInUseError):
                await archive_once(settings, out)
            assert started.stop(child) == 0
    finally:
        await producer.stop()
    rows = archived(out)
    assert Counter(row["event_id"] for row in rows) == Counter(event.event_id for event in events)


async def test_no_topics_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TopicError, match="onebar stream"):
        await archive_once(settings, tmp_path / "a")
