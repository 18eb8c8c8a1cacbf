"""Kafka's event topics into an archive: up to their end, or on and on.

The reader never jumps: where Kafka does not have the next offset any more, it looks anew at what
there is, and either that is no loss, or it is told as one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from onebar.settings import Settings
from stream.archive.card import ArchiveCard, Gap, LogGapError
from stream.archive.writer import ArchiveWriter
from stream.events import BEHAVIORS, IMPRESSIONS, RULES, VIDEOS, InvalidEventError, encode
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.consumer import OffsetGoneError, RecordConsumer, begin_offsets, end_offsets
from stream.kafka.records import Record, event_in
from stream.kafka.topics import KafkaUnavailableError, TopicError, partition_counts
from stream.workers.metrics import ARCHIVED, LAG, WorkerHealth
from stream.workers.retry import until_back
from stream.workers.runtime import unless

log = structlog.get_logger(__name__)

TOPICS = (VIDEOS, IMPRESSIONS, BEHAVIORS, RULES)
MAX_RECORDS = 5000
LOOK_S = 10.0
"""How often Kafka is asked whether it is there, and for new partitions."""
ANSWER_WITHIN_S = 5.0
MOST_TRIES = 5
"""Looks at what Kafka has, one after the other without a record, before its refusal is an error."""

Offsets = Mapping[tuple[str, int], int]
Told = Callable[[int, int], None]
"""Records read so far, and how many there were to read (0 while following)."""


def starts(
    card: ArchiveCard, begins: Offsets, ends: Offsets
) -> tuple[dict[tuple[str, int], int], list[Gap]]:
    """Where to read each (topic, partition) from, and what was lost before that.

    A partition that came to a topic later is expected from its first record on. Raises
    `LogGapError` where a topic ends before what was archived of it, or lacks a partition: it is
    another one.
    """
    for topic, positions in card.positions.items():
        for partition, at in positions.items():
            end = ends.get((topic, partition))
            if end is None or at > end:
                now = "is gone" if end is None else f"ends at offset {end:,}"
                raise LogGapError(
                    f"{topic}, partition {partition} {now}, but it is archived up to offset "
                    f"{at:,}: the topic was made anew. Begin a new archive, beside this one."
                )
    found: dict[tuple[str, int], int] = {}
    gaps = []
    for (topic, partition), begin in begins.items():
        at = card.positions[topic].get(partition, 0) if topic in card.positions else begin
        if at < begin:
            gaps.append(Gap(topic, partition, at, begin))
        found[topic, partition] = max(at, begin)
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
    health: WorkerHealth | None = None,
) -> int:
    """Read the event topics into the archive; how many records.

    Ends at the end that the topics have at the start, or with `follow` when `stop` is set; what was
    read is flushed. Raises `KafkaUnavailableError` (following waits instead), `TopicError` where
    there are no topics, `OtherSourceError`, and `LogGapError` where records were lost before they
    were archived, unless `allow_gap`.
    """
    writer.of_topics(settings.topic_prefix)
    reading = _Reading(
        settings,
        writer,
        stop,
        follow=follow,
        allow_gap=allow_gap,
        flush_s=flush_s,
        flush_rows=flush_rows,
        told=told,
        health=health or WorkerHealth(),
    )
    return await reading.run()


class _Reading:
    def __init__(
        self,
        settings: Settings,
        writer: ArchiveWriter,
        stop: asyncio.Event,
        *,
        follow: bool,
        allow_gap: bool,
        flush_s: float,
        flush_rows: int,
        told: Told,
        health: WorkerHealth,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._stop = stop
        self._follow = follow
        self._allow_gap = allow_gap
        self._flush_s = flush_s
        self._flush_rows = flush_rows
        self._pseudonyms = Pseudonyms(settings.user_id_key)
        self._told = told
        self._health = health
        self._ends: Offsets | None = None
        self._total = 0
        self._done = 0
        self._tries = 0

    async def run(self) -> int:
        more = True
        while more and not self._stop.is_set():
            at: Offsets = {}

            async def look() -> None:
                nonlocal at
                at = await self._begin()

            looking = until_back(look, self._health) if self._follow else look()
            if not await unless(self._stop, looking):
                break
            consumer = RecordConsumer(
                self._settings, TOPICS, group=None, max_records=MAX_RECORDS, start_from=at
            )
            more = await self._read(consumer, at)
        return self._done

    async def _begin(self) -> Offsets:
        """Where to read from, after what is lost was told or noted."""
        settings = self._settings
        pairs = await _partitions(settings)
        if not pairs:
            raise TopicError(
                f"Kafka at {settings.kafka_bootstrap} has none of "
                f"{', '.join(settings.topic_prefix + topic for topic in TOPICS)}: start "
                "`onebar stream` once, or set ONEBAR_TOPIC_PREFIX"
            )
        ends = await _plain(settings, end_offsets, pairs)
        at, gaps = starts(self._writer.card, await _plain(settings, begin_offsets, pairs), ends)
        for gap in gaps:
            lost = (
                f"{gap.topic}, partition {gap.partition}, offsets {gap.begin:,} to {gap.end - 1:,}"
            )
            if not self._allow_gap:
                raise LogGapError(
                    f"Kafka no longer has {lost}: they were deleted before they were archived. "
                    "--allow-gap goes on behind them and notes it in archive.json."
                )
            log.warning("archive_gap", lost=lost)
            self._writer.skip(gap)
        self._writer.begin(at)
        if self._ends is None:
            self._ends = ends
            if not self._follow:
                self._total = sum(max(0, ends[pair] - offset) for pair, offset in at.items())
        return at

    async def _read(self, consumer: RecordConsumer, at: Offsets) -> bool:
        """Read until the end, or until `stop`; whether to look at what Kafka has and go on."""
        try:
            await consumer.start()
            self._health.started()
            again = await self._take_all(consumer, at)
            # Only now is the reader's position true: after an error it may be past what it gave.
            reached = {pair: await consumer.position(*pair) for pair in at}
            await asyncio.to_thread(self._writer.flush, reached)
            return again
        except (OffsetGoneError, KafkaUnavailableError) as error:
            await asyncio.to_thread(self._writer.flush)
            self._tries += 1
            away = isinstance(error, KafkaUnavailableError)
            if (away and not self._follow) or (not away and self._tries > MOST_TRIES):
                raise
            log.warning("archive_looks_again", error=str(error))
            await unless(self._stop, asyncio.sleep(1.0))
            return True
        finally:
            await consumer.stop()

    async def _take_all(self, consumer: RecordConsumer, at: Offsets) -> bool:
        flushed = looked = time.monotonic()
        while not self._stop.is_set():
            if not self._follow and await self._at_end(consumer, at):
                return False
            records = await consumer.fetch(0.5)
            now = time.monotonic()
            if not self._writer.pending:
                flushed = now
            for record in records:
                self._writer.add(
                    record.topic,
                    record.partition,
                    record.offset,
                    record.timestamp,
                    self._value(record),
                )
                ARCHIVED.labels(record.topic).inc()
            if records:
                self._tries = 0
                self._done += len(records)
                self._told(self._done, self._total)
            self._health.beat()
            due = self._writer.pending and now - flushed >= self._flush_s
            if due or self._writer.full(self._flush_rows):
                await asyncio.to_thread(self._writer.flush)
            if now - looked >= LOOK_S:
                looked = now
                if await self._grown(consumer, at):
                    return True
        return False

    async def _at_end(self, consumer: RecordConsumer, at: Offsets) -> bool:
        ends = self._ends or {}
        for topic, partition in at:
            if not await consumer.reached(topic, partition, ends.get((topic, partition), 0)):
                return False
        return True

    async def _grown(self, consumer: RecordConsumer, at: Offsets) -> bool:
        """Whether there are partitions that are not read. Says how far behind the reader is, and
        where Kafka is away; that is an error only for who does not follow."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await _partitions(self._settings)
        except (KafkaUnavailableError, TimeoutError) as error:
            if not self._follow:
                raise KafkaUnavailableError(self._settings.kafka_bootstrap, error) from error
            said = str(error) or f"no answer within {ANSWER_WITHIN_S:g} s"
            self._health.away("kafka", said)
            if self._health.outages.missed("kafka", error) is not None:
                log.warning("dependency_away", dependency="kafka", error=said)
            return False
        self._health.back("kafka")
        self._health.outages.over("kafka")
        for (topic, partition), behind in (await consumer.lags()).items():
            LAG.labels(topic, str(partition)).set(behind)
        return self._follow and not set(found) <= at.keys()

    def _value(self, record: Record) -> bytes:
        """The message, spelled out where it is a tombstone, users by their pseudonyms."""
        if record.value and not self._pseudonyms:
            return record.value
        try:
            return encode(event_in(record, self._pseudonyms))
        except InvalidEventError:
            return record.value


async def _partitions(settings: Settings) -> list[tuple[str, int]]:
    """The (topic without prefix, partition)s there are."""
    counts = await partition_counts(settings)
    return [(t, p) for t in TOPICS for p in range(counts.get(settings.topic_prefix + t, 0))]


async def _plain(
    settings: Settings,
    ask: Callable[..., Coroutine[Any, Any, Offsets]],
    pairs: list[tuple[str, int]],
) -> dict[tuple[str, int], int]:
    """What `ask` says of partitions, for names without the prefix."""
    prefix = settings.topic_prefix
    found = await ask(settings, [(prefix + topic, p) for topic, p in pairs])
    return {(topic[len(prefix) :], p): offset for (topic, p), offset in found.items()}
