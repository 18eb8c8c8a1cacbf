"""Kafka's event topics into an archive: up to their end, or on and on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from onebar.settings import Settings
from stream.archive.card import ArchiveCard, Gap, LogGapError
from stream.archive.writer import ArchiveWriter
from stream.consumer import RecordConsumer, begin_offsets, end_offsets
from stream.events import BEHAVIORS, IMPRESSIONS, VIDEOS
from stream.topics import TopicError, partition_counts

log = structlog.get_logger(__name__)

TOPICS = (VIDEOS, IMPRESSIONS, BEHAVIORS)
MAX_RECORDS = 5000
QUIET_S = 5.0
"""Nothing for so long before the end: what is left are markers of transactions, not records."""

Offsets = Mapping[tuple[str, int], int]
Told = Callable[[int, int], None]
"""Records read so far, and how many there were to read (0 while following)."""


def starts(
    card: ArchiveCard, begins: Offsets, ends: Offsets
) -> tuple[dict[tuple[str, int], int], list[Gap]]:
    """Where to read each (topic, partition) from, and what was lost before that.

    Raises `LogGapError` where a topic ends before what was archived of it: it is another one.
    """
    found: dict[tuple[str, int], int] = {}
    gaps = []
    for (topic, partition), begin in begins.items():
        at = card.position(topic, partition)
        end = ends[topic, partition]
        if at is not None and at > end:
            raise LogGapError(
                f"{topic}, partition {partition} ends at offset {end:,}, but {at:,} records of it "
                "are archived: the topic was made anew. Begin a new archive, beside this one."
            )
        if at is not None and at < begin:
            gaps.append(Gap(topic, partition, at, begin))
        found[topic, partition] = begin if at is None else max(at, begin)
    return found, gaps


async def archive_topics(
    settings: Settings,
    writer: ArchiveWriter,
    *,
    stop: asyncio.Event,
    follow: bool = False,
    allow_gap: bool = False,
    flush_s: float = 60.0,
    flush_rows: int = 100_000,
    told: Told = lambda done, total: None,
) -> int:
    """Read the event topics into the archive; how many records.

    Ends at the end that the topics have at the start, or with `follow` when `stop` is set; what was
    read is flushed. Raises `KafkaUnavailableError`, `TopicError` where there are no topics,
    `LogGapError` where records were lost before they were archived, unless `allow_gap`.
    """
    prefix, bootstrap = settings.topic_prefix, settings.kafka_bootstrap
    counts = await partition_counts(bootstrap)
    pairs = [(prefix + t, p) for t in TOPICS for p in range(counts.get(prefix + t, 0))]
    if not pairs:
        raise TopicError(
            f"Kafka at {bootstrap} has none of {', '.join(prefix + t for t in TOPICS)}: start "
            "`onebar stream` once, or set ONEBAR_TOPIC_PREFIX"
        )

    def plain(offsets: Offsets) -> dict[tuple[str, int], int]:
        return {(topic[len(prefix) :], p): offset for (topic, p), offset in offsets.items()}

    ends = plain(await end_offsets(bootstrap, pairs))
    begins = plain(await begin_offsets(bootstrap, pairs))
    found, gaps = starts(writer.card, begins, ends)
    for gap in gaps:
        lost = f"{gap.topic}, partition {gap.partition}, offsets {gap.begin:,} to {gap.end - 1:,}"
        if not allow_gap:
            raise LogGapError(
                f"Kafka no longer has {lost}: they were deleted before they were archived. "
                "--allow-gap goes on behind them and notes it in archive.json."
            )
        log.warning("archive_gap", lost=lost)
        writer.skip(gap)
    total = 0 if follow else sum(max(0, ends[pair] - at) for pair, at in found.items())
    consumer = RecordConsumer(settings, TOPICS, group=None, alone=True, max_records=MAX_RECORDS)
    await consumer.start()
    try:
        consumer.seek(found)
        return await _read(
            consumer, writer, None if follow else ends, stop, flush_s, flush_rows, total, told
        )
    finally:
        await consumer.stop()


async def _read(
    consumer: RecordConsumer,
    writer: ArchiveWriter,
    ends: Offsets | None,
    stop: asyncio.Event,
    flush_s: float,
    flush_rows: int,
    total: int,
    told: Told,
) -> int:
    done = 0
    flushed = heard = time.monotonic()
    while not stop.is_set():
        if ends is not None and await _at_end(consumer, ends):
            break
        records = await consumer.fetch(0.5)
        now = time.monotonic()
        for record in records:
            writer.add(
                record.topic, record.partition, record.offset, record.timestamp, record.value
            )
        if records:
            heard = now
            done += len(records)
            told(done, total)
        elif ends is not None and now - heard > QUIET_S:
            break
        if writer.pending and (writer.pending >= flush_rows or now - flushed >= flush_s):
            await asyncio.to_thread(writer.flush)
            flushed = time.monotonic()
    await asyncio.to_thread(writer.flush)
    return done


async def _at_end(consumer: RecordConsumer, ends: Offsets) -> bool:
    for (topic, partition), end in ends.items():
        if await consumer.position(topic, partition) < end:
            return False
    return True
