"""The archive of real topics: exactly what was sent, also when its writer is killed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from conftest import Servers
from stream_fixtures import add_partitions, make_events, make_topics
from support import Workers, eventually, onebar

from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.archive import follow
from stream.archive.card import ArchiveInUseError, Gap, LogGapError
from stream.archive.follow import archive_topics
from stream.archive.reader import open_archive
from stream.archive.writer import ArchiveWriter
from stream.events import BEHAVIORS, IMPRESSIONS, RULES, VIDEOS, Impression, encode
from stream.kafka.consumer import end_offsets
from stream.kafka.producer import EventProducer
from stream.kafka.topics import TOPICS, TopicError, delete_topics, ensure_topics

pytestmark = pytest.mark.integration


def producer_of(settings: Settings) -> EventProducer:
    return EventProducer(settings)


def archived(directory: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in directory.rglob("*.parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


async def archive_once(settings: Settings, out: Path, *, allow_gap: bool = False) -> int:
    with ArchiveWriter(out) as writer:
        return await archive_topics(settings, writer, stop=asyncio.Event(), allow_gap=allow_gap)


def count(out: Path) -> int:
    """Records that the card knows."""
    return sum(open_archive(out).card.counts.values()) if (out / "archive.json").exists() else 0


def impressions(start: int, end: int) -> list[Impression]:
    return [
        Impression(event_id=f"i{n}", ts=1_700_000_000.0 + n, video_id=f"v{n % 9}")
        for n in range(start, end)
    ]


@asynccontextmanager
async def following(settings: Settings, out: Path) -> AsyncIterator[asyncio.Task[int]]:
    """A follower in this process, stopped at the end of the block."""
    stop = asyncio.Event()
    with ArchiveWriter(out) as writer:
        task = asyncio.create_task(
            archive_topics(settings, writer, stop=stop, follow=True, flush_s=0.1)
        )
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait((task,))


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
    settings: Settings, tmp_path: Path, workers: Workers
) -> None:
    await make_topics(settings)
    events = impressions(0, 900)
    out = tmp_path / "a"
    command = ["archive", "--out", str(out), "--follow", "--flush-s", "0.2", "--flush-rows", "40"]

    producer = producer_of(settings)
    await producer.start()
    try:
        for start in (0, 300, 600):
            sending = asyncio.create_task(producer.send(events[start : start + 300]))
            child = workers.start(*command)
            await eventually(lambda start=start: count(out) > start + 50)
            workers.kill(child)
            await sending
        child = workers.start(*command)
        events.append(Impression(event_id="last", ts=1_700_000_000.0, video_id="v"))
        await producer.send(events[-1:])
        await eventually(lambda: count(out) == 901)
        with pytest.raises(ArchiveInUseError):
            await archive_once(settings, out)
        assert workers.stop(child) == 0
    finally:
        await producer.stop()
    rows = archived(out)
    assert Counter(row["event_id"] for row in rows) == Counter(event.event_id for event in events)
    open_archive(out).check()


async def test_no_topics_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TopicError, match="onebar stream"):
        await archive_once(settings, tmp_path / "a")


async def test_topics_that_come_later_are_read(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.2)
    await ensure_topics(
        settings,
        specs=[spec for spec in TOPICS if spec.name == VIDEOS],
    )
    out = tmp_path / "a"
    async with following(settings, out) as task:
        await eventually(lambda: (out / "archive.json").exists())
        await make_topics(settings)
        async with producer_of(settings) as producer:
            await producer.send(impressions(0, 20))
        await eventually(lambda: task.done() or count(out) == 20)
    assert await task == 20
    assert set(open_archive(out).card.positions) == {VIDEOS, IMPRESSIONS, BEHAVIORS, RULES}


async def test_records_that_kafka_deleted_first_are_told(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker deletes no records")
    one = settings.model_copy(update={"partitions": 1})
    await make_topics(one)
    out = tmp_path / "a"
    async with producer_of(one) as producer:
        await producer.send(impressions(0, 10))
        assert await archive_once(one, out) == 10
        await producer.send(impressions(10, 20))
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    topic = TopicPartition(settings.topic_prefix + IMPRESSIONS, 0)
    await admin.delete_records({topic: RecordsToDelete(15)})
    await admin.close()
    with pytest.raises(LogGapError, match=r"offsets 10 to 14.*--allow-gap"):
        await archive_once(one, out)
    assert await archive_once(one, out, allow_gap=True) == 5
    assert open_archive(out).card.gaps == [Gap(IMPRESSIONS, 0, 10, 15)]
    ids = [row["event_id"] for row in archived(out)]
    assert sorted(ids) == sorted(e.event_id for e in [*impressions(0, 10), *impressions(15, 20)])
    assert await archive_once(one, out) == 0


async def test_a_topic_made_anew_under_a_follower_is_told(
    settings: Settings, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker does not say that an offset is out of range")
    monkeypatch.setattr(follow, "LOOK_S", 0.2)
    await make_topics(settings)
    out = tmp_path / "a"
    async with following(settings, out) as task:
        async with producer_of(settings) as producer:
            await producer.send(impressions(0, 50))
            await eventually(lambda: task.done() or count(out) == 50)
        await delete_topics(settings, [settings.topic_prefix + IMPRESSIONS])
        await make_topics(settings)
        await eventually(task.done)
        with pytest.raises(LogGapError, match="made anew"):
            await task
    assert count(out) == len(archived(out)) == 50


async def test_partitions_that_come_later_are_read(
    settings: Settings, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker adds no partitions")
    monkeypatch.setattr(follow, "LOOK_S", 0.2)
    await make_topics(settings)
    out = tmp_path / "a"
    async with following(settings, out) as task:
        await eventually(lambda: (out / "archive.json").exists())
        await add_partitions(settings, IMPRESSIONS, 5)
        async with producer_of(settings) as producer:
            await producer.send(impressions(0, 60))
        await eventually(lambda: task.done() or count(out) == 60)
    assert await task == 60
    assert {row["partition"] for row in archived(out)} >= {3, 4}


async def test_transactions_are_read_as_far_as_they_are_committed(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker has no transactions")
    one = settings.model_copy(update={"partitions": 1})
    await make_topics(one)
    out = tmp_path / "a"
    name = one.topic_prefix + IMPRESSIONS

    async def hand_over(kafka: AIOKafkaProducer, start: int, end: int) -> None:
        for event in impressions(start, end):
            await kafka.send_and_wait(name, encode(event))

    async def marked(end: int) -> None:
        """The mark of a transaction's end comes after the answer that it has ended."""

        async def there() -> bool:
            return await end_offsets(one, [(name, 0)]) == {(name, 0): end}

        await eventually(there)

    async with AIOKafkaProducer(
        bootstrap_servers=one.kafka_bootstrap, transactional_id=one.namespace
    ) as kafka:
        async with kafka.transaction():
            await hand_over(kafka, 0, 5)
        await kafka.begin_transaction()
        await hand_over(kafka, 100, 103)
        await kafka.abort_transaction()
        await marked(10)
        assert await archive_once(one, out) == 5
        # 5 records, a mark, 3 aborted ones, a mark: all of it is behind.
        assert open_archive(out).card.positions[IMPRESSIONS] == {0: 10}
        async with kafka.transaction():
            await hand_over(kafka, 5, 8)
            assert await archive_once(one, out) == 0  # it does not wait for what is open
        await marked(14)
        assert await archive_once(one, out) == 3
    rows = sorted(archived(out), key=lambda row: row["offset"])
    assert [row["event_id"] for row in rows] == [event.event_id for event in impressions(0, 8)]


async def test_the_command_tells_what_it_added(
    settings: Settings, tmp_path: Path, workers: Workers
) -> None:
    await make_topics(settings)
    out = str(tmp_path / "a")
    async with producer_of(settings) as producer:
        await producer.send(impressions(0, 30))
    done = await asyncio.to_thread(onebar, "archive", "--out", out, "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["added"], told["counts"], told["gaps"]) == (30, {"impression": 30}, [])
    watched = settings.model_copy(update={"metrics_port": free_port()})
    child = workers.start("archive", "--out", out, "--follow", settings=watched)
    await workers.ready(child, watched)
    refused = await asyncio.to_thread(onebar, "archive", "--out", out, settings=settings)
    assert refused.returncode == 1
    assert "another process" in refused.stderr
    assert "Traceback" not in refused.stderr
    child.signal(signal.SIGINT)
    child.process.wait(30)
    assert child.process.returncode == 0, child.tail()
