"""The mapping worker: records of somebody else's topic become events on ours.

It needs Kafka alone. Offsets are committed once the events of a batch are acknowledged; what is
delivered again makes the same event ids, which count once.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from onebar.errors import UsageError
from onebar.process.garbage import spare_garbage_collection
from onebar.process.tasks import end_tasks
from onebar.process.tracing import carried, consuming, start_tracing, stop_tracing
from onebar.settings import Settings
from stream.events import Event
from stream.kafka.consumer import Offsets, RecordConsumer, committed_offsets, end_offsets
from stream.kafka.groups import mapping_group
from stream.kafka.producer import EventProducer, EventRefusedError, Message
from stream.kafka.records import Record, next_offsets
from stream.kafka.topics import TOPICS, TopicError, ensure_topics, partition_counts
from stream.mapping.mapping import EventMapping, UnmappedError
from stream.mapping.records import check_fit, events_of, preview_records
from stream.workers.dead_letters import dead_letter, set_aside
from stream.workers.health import KafkaWatch, Lags
from stream.workers.metrics import (
    MAPPED_EVENTS,
    MAPPED_RECORDS,
    MAPPED_SECONDS,
    WorkerHealth,
    serve,
)
from stream.workers.retry import until_back
from stream.workers.runtime import quiet_libraries, unless

log = structlog.get_logger(__name__)

BATCH = 1000
"""Most records taken together."""
LOOKED_AT = 1000
"""Records that are looked at before a group that has read nothing yet begins."""
NEEDS = ("kafka", "start", "loop")
STOP_WITHIN_S = 4.0
"""How long the batch in hand may take once the worker is told to stop; else it comes again."""


class OurTopicError(UsageError):
    """The topic to read is one that events are sent to: they would be fed to themselves."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"{topic} is a topic of OneBar's own, whose events need no mapping; name the topic "
            "that your feed writes its rows to"
        )


class WrongMappingError(UsageError):
    """No record that was looked at becomes an event, and some should have."""


def theirs(settings: Settings) -> Settings:
    """The same for topics that have no prefix of ours."""
    return settings.model_copy(update={"topic_prefix": ""})


async def check_topic(settings: Settings, topic: str) -> int:
    """How many partitions the topic to read has. Raises `TopicError` where there is none of that
    name, `OurTopicError`, and `KafkaUnavailableError`."""
    if topic in {settings.topic_prefix + spec.name for spec in TOPICS}:
        raise OurTopicError(topic)
    counts = await partition_counts(settings)
    if topic not in counts:
        near = difflib.get_close_matches(topic, counts, n=1)
        raise TopicError(
            f"Kafka at {settings.kafka_bootstrap} has no topic {topic!r}"
            + (f"; is {near[0]!r} meant?" if near else "")
        )
    return counts[topic]


async def first_records(settings: Settings, topic: str, count: int) -> list[Record]:
    """The first records that are still there, up to `count`, of all partitions; nobody's offsets
    are moved. Raises as `check_topic` does."""
    partitions = range(await check_topic(settings, topic))
    ends = await end_offsets(settings, [(topic, partition) for partition in partitions])
    left = {partition for (_, partition), end in ends.items() if end > 0}
    consumer = RecordConsumer(theirs(settings), [topic], group=None, max_records=count, alone=True)
    await consumer.start()
    found: list[Record] = []
    try:
        while left and len(found) < count:
            found += await consumer.fetch(0.5)
            for partition in list(left):
                if await consumer.reached(topic, partition, ends[topic, partition]):
                    left.discard(partition)
    finally:
        await consumer.stop()
    return found[:count]


async def check_mapping(settings: Settings, topic: str, mapping: EventMapping, group: str) -> None:
    """Look at the first records before a group that has read nothing yet sends any. Raises
    `WrongMappingError`, and as `check_topic` does."""
    pairs = [(topic, partition) for partition in range(await check_topic(settings, topic))]
    if any((await committed_offsets(settings, group, pairs)).values()):
        return
    seen = preview_records(await first_records(settings, topic, LOOKED_AT), mapping)
    if seen.errors and not seen.events:
        where, why = seen.errors[0]
        hint = "".join(f"; {hint}" for hint in seen.hints[:1])
        raise WrongMappingError(
            f"none of the first {seen.rows:,} records of {topic} becomes an event by the mapping "
            f"{mapping.name!r}: {why} (record {where}){hint}. Nothing was sent; --preview "
            "shows what it makes of them"
        )
    log.info(
        "mapping_looked_at",
        topic=topic,
        mapping=mapping.name,
        group=group,
        records=seen.rows,
        events=len(seen.events),
        unmapped=seen.unmapped,
        errors=len(seen.errors),
    )


class TopicMapper:
    """Takes batches of records. When `take` returns, the events of each record are on our topics,
    or it is a dead letter, and Kafka has acknowledged both: its offset may be committed."""

    def __init__(
        self, mapping: EventMapping, producer: EventProducer, health: WorkerHealth
    ) -> None:
        self._mapping = mapping
        self._producer = producer
        self._health = health

    async def take(self, records: Sequence[Record]) -> None:
        """Waits however long Kafka is away."""
        with consuming((each.position, each.topic, each.headers) for each in records):
            await self._take(records)

    async def _take(self, records: Sequence[Record]) -> None:
        events: list[Event] = []
        owners: list[Record] = []
        errors: dict[int, Exception] = {}
        for place, record in enumerate(records):
            made = events_of(record, self._mapping)
            fine = [one for one in made if not isinstance(one, UnmappedError)]
            events += fine
            owners += [record] * len(fine)
            wrong = [one for one in made if isinstance(one, UnmappedError)]
            if wrong:
                errors[place] = wrong[0]
            MAPPED_RECORDS.labels("dead_letter" if wrong else "events" if fine else "none").inc()
            if place % 100 == 99:
                await asyncio.sleep(0)  # heartbeats, health
        await self._send(events, owners, errors, records)

    async def _send(
        self,
        events: Sequence[Event],
        owners: Sequence[Record],
        errors: dict[int, Exception],
        records: Sequence[Record],
    ) -> None:
        refused: dict[int, str] = {}
        try:
            headers = [carried(owner.position) for owner in owners]
            await until_back(lambda: self._producer.send(events, headers), self._health)
        except EventRefusedError as error:
            refused = error.refused
        places = {record.position: place for place, record in enumerate(records)}
        for event, why in refused.items():
            place = places[owners[event].position]
            if place not in errors:
                errors[place] = EventRefusedError({event: why})
        for kind, count in Counter(event.type for event in events).items():
            MAPPED_EVENTS.labels(kind).inc(count)
        letters = [self._letter(records[place], why) for place, why in sorted(errors.items())]
        if letters:
            await set_aside(self._producer, letters, self._health)
        now = time.time()
        for owner in owners:
            MAPPED_SECONDS.observe(max(0.0, now - owner.timestamp))

    def _letter(self, record: Record, error: Exception) -> Message:
        log.warning(
            "dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            bytes=len(record.value),
            reason=str(error)[:300],
        )
        return dead_letter(record, error, self._mapping.name)


class MappingLoop:
    """Fetches, has each batch taken, and commits behind it."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        mapper: TopicMapper,
        health: WorkerHealth,
    ) -> None:
        self._mapper = mapper
        self._health = health
        self._in_hand: Counter[tuple[str, int]] = Counter()
        self._consumer = RecordConsumer(theirs(settings), [topic], group=group, max_records=BATCH)

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then the batch in hand is finished and committed, if it can be within
        `STOP_WITHIN_S`: else it comes again."""
        if not await unless(stop, until_back(self._consumer.start, self._health)):
            return
        self._health.started()
        spare_garbage_collection()
        log.info("mapping_started", pid=os.getpid())
        try:
            work = asyncio.create_task(self._work(stop))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not work.done():
                await asyncio.wait((work,), timeout=STOP_WITHIN_S)
            if work.done():
                await work
            else:
                await end_tasks(work)
        finally:
            await self._consumer.stop()
        log.info("mapping_stopped")

    async def lags(self) -> Lags:
        """Records of each partition that are not fetched, or still in hand."""
        unread = await self._consumer.lags()
        return {pair: behind + self._in_hand[pair] for pair, behind in unread.items()}

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            records = await until_back(lambda: self._consumer.fetch(0.1), self._health)
            if not records:
                continue
            self._in_hand = Counter((record.topic, record.partition) for record in records)
            await self._mapper.take(records)
            await self._commit(next_offsets(records))
            self._in_hand.clear()
            self._health.beat()

    async def _commit(self, offsets: Offsets) -> None:
        await until_back(lambda: self._consumer.commit(offsets), self._health)


async def run_mapping(
    settings: Settings, topic: str, mapping: EventMapping, name: str | None = None
) -> None:
    """Run until SIGTERM or SIGINT. Workers of one `name` (the topic's, where there is none) share
    the topic's partitions and their offsets.

    Waits for Kafka as long as it is away. Raises `TopicError`, and a `UsageError` where the topic
    or the mapping is a wrong one.
    """
    check_fit(mapping)
    group = mapping_group(settings, name or topic)
    quiet_libraries()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = WorkerHealth(needs=NEEDS)
    async with (
        serve(settings.metrics_host, settings.metrics_port, health),
        contextlib.AsyncExitStack() as stack,
    ):
        start_tracing("onebar-map-topic")
        stack.callback(stop_tracing)
        producer = EventProducer(settings)
        stack.push_async_callback(producer.stop)

        async def prepare() -> None:
            await check_mapping(settings, topic, mapping, group)
            await ensure_topics(settings)
            await producer.start()

        if not await unless(stop, until_back(prepare, health)):
            return
        mapper = TopicMapper(mapping, producer, health)
        loop = MappingLoop(settings, topic, group, mapper, health)
        log.info("mapping_started", topic=topic, mapping=mapping.name, group=group, pid=os.getpid())
        watch = asyncio.create_task(KafkaWatch(producer, health, loop.lags).watch())
        try:
            await loop.run(stop)
        finally:
            await end_tasks(watch)
        if not watch.cancelled():
            watch.result()
