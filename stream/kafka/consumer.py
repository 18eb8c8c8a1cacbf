"""Records out of Kafka by hand-kept offsets, and how far behind a group is: the one place that
consumes with aiokafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    UnsupportedCodecError,
)

from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.kafka.clients import running, start_client, stop_client
from stream.kafka.connection import client_options
from stream.kafka.records import Record
from stream.kafka.topics import (
    CLIENT_ERRORS,
    connecting_error,
    kafka_error,
    partition_counts,
)

METADATA_MAX_AGE_MS = 10_000
"""How often Kafka is asked which partitions there are: so soon are those read that are added."""

Offsets = Mapping[tuple[str, int], int]
"""(topic with prefix, partition) -> offset."""

OnAssigned = Callable[[list[tuple[str, int]]], None]
"""Told the (topic, partition)s this member has after a rebalance, before it reads them."""


class OffsetGoneError(OneBarError, RuntimeError):
    """Kafka has no record at an offset that was to be read from, nor ends there."""


class CompressionError(OneBarError, RuntimeError):
    """Records are compressed in a way that can't be read here; the text names it."""


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, tell: OnAssigned | None, prefix: int) -> None:
        self._tell = tell
        self._prefix = prefix

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing: what is under way is not committed any more."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        if self._tell is not None:
            self._tell([(tp.topic[self._prefix :], tp.partition) for tp in assigned])


class RecordConsumer:
    """Reads topics; commits only what it is told to.

    As a member of the consumer group `group`, or with `alone` all partitions for itself, which
    takes no joining: the group then only names the offsets, and None keeps none. Where there are
    no offsets it begins at the start of the topic. Topic names come and go without the prefix.

    With `start_from` it reads exactly those (topic, partition)s, alone, from those offsets, and
    never jumps to another one by itself: `fetch` raises `OffsetGoneError`.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        group: str | None,
        max_records: int,
        alone: bool = False,
        start_from: Offsets | None = None,
        on_assigned: OnAssigned | None = None,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._max_records = max_records
        self._group = group
        self._alone = alone or start_from is not None
        self._start_from = start_from
        self._on_assigned = on_assigned
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Join the group. Raises `KafkaUnavailableError`."""
        settings = self._settings
        consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest" if self._start_from is None else "none",
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.heartbeat_interval_s * 1000),
            max_poll_records=self._max_records,
            max_partition_fetch_bytes=2 * 1024 * 1024,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            isolation_level="read_committed",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        names = [settings.topic_prefix + topic for topic in self._topics]
        if not self._alone:
            consumer.subscribe(
                names, listener=_Assigned(self._on_assigned, len(settings.topic_prefix))
            )
        try:
            await start_client(consumer)
        except CLIENT_ERRORS as error:
            raise await connecting_error(settings, error) from error
        self._consumer = consumer
        try:
            await self._assign(consumer, names)
        except BaseException:  # it may be started again, and would leave this one behind
            await self.stop()
            raise

    async def _assign(self, consumer: AIOKafkaConsumer, names: Sequence[str]) -> None:
        settings = self._settings
        if self._start_from is not None:
            offsets = {
                TopicPartition(settings.topic_prefix + topic, partition): offset
                for (topic, partition), offset in self._start_from.items()
            }
            consumer.assign(list(offsets))
            for tp, offset in offsets.items():
                consumer.seek(tp, offset)
        elif self._alone:
            counts = await partition_counts(settings)
            consumer.assign(
                [TopicPartition(name, p) for name in names for p in range(counts.get(name, 0))]
            )

    async def stop(self) -> None:
        """Leave the group. Commits nothing. With Kafka away it is given up after a while."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_client(consumer)

    async def fetch(self, wait_s: float) -> list[Record]:
        """The next records, each partition's in order; empty where none came in `wait_s`."""
        assert self._consumer is not None
        try:
            batches = await self._consumer.getmany(
                timeout_ms=round(wait_s * 1000), max_records=self._max_records
            )
        except OffsetOutOfRangeError as error:
            raise OffsetGoneError(f"Kafka has not the offsets {error.args[0]}") from error
        except UnsupportedCodecError as error:
            raise CompressionError(
                f"records of {', '.join(self._topics)} are compressed in a way that can't be read "
                f"here ({error}): have their producer use gzip, snappy, lz4, zstd or none"
            ) from error
        except (KafkaError, OSError) as error:
            raise kafka_error(self._settings.kafka_bootstrap, error) from error
        prefix = len(self._settings.topic_prefix)
        return [
            Record(
                topic=partition.topic[prefix:],
                partition=partition.partition,
                offset=message.offset,
                timestamp=message.timestamp / 1000,
                key=message.key,
                value=message.value or b"",
                headers=tuple(message.headers),
                null=message.value is None,
            )
            for partition, messages in batches.items()
            for message in messages
        ]

    async def commit(self, offsets: Offsets) -> bool:
        """Note the next offset to read of each (topic, partition).

        False where none of them is this member's any more: the new owner gets the records again.
        """
        assert self._consumer is not None
        prefix = self._settings.topic_prefix
        wanted = {TopicPartition(prefix + t, p): offset for (t, p), offset in offsets.items()}
        mine = self._consumer.assignment()
        done = {tp: offset for tp, offset in wanted.items() if tp in mine}
        if not done:
            return False
        try:
            await self._consumer.commit(done)
        except (CommitFailedError, IllegalStateError):
            return False
        except (KafkaError, OSError) as error:
            raise kafka_error(self._settings.kafka_bootstrap, error) from error
        return True

    async def position(self, topic: str, partition: int) -> int:
        """The next offset to fetch; 0 while the partition is not this member's."""
        assert self._consumer is not None
        at = TopicPartition(self._settings.topic_prefix + topic, partition)
        if at not in self._consumer.assignment():
            return 0
        return int(await self._consumer.position(at))

    async def reached(self, topic: str, partition: int, end: int) -> bool:
        """Whether all that can be read before offset `end` has been fetched.

        What an open transaction holds back can't be read; nor is it waited for.
        """
        assert self._consumer is not None
        at = TopicPartition(self._settings.topic_prefix + topic, partition)
        position = await self._consumer.position(at)
        stable = self._consumer.last_stable_offset(at)
        return bool(position >= end or (stable is not None and 0 <= stable <= position))

    async def outgrown(self) -> bool:
        """Whether its topics have more partitions than it reads. For one that reads alone, which
        nobody gives those that are added. Raises `KafkaUnavailableError`."""
        assert self._consumer is not None
        counts = await partition_counts(self._settings)
        names = (self._settings.topic_prefix + topic for topic in self._topics)
        return sum(counts.get(name, 0) for name in names) > len(self._consumer.assignment())

    def end(self, topic: str, partition: int) -> int | None:
        """Where this partition ends, as far as heard; None before anything was fetched of it, and
        where it is not this member's."""
        if self._consumer is None:
            return None
        try:
            found = self._consumer.highwater(
                TopicPartition(self._settings.topic_prefix + topic, partition)
            )
        except (AssertionError, KafkaError):
            return None
        return None if found is None else int(found)

    async def lags(self) -> dict[tuple[str, int], int]:
        """Records of each assigned (topic, partition) that are not fetched yet, as far as heard;
        empty before `start`."""
        if self._consumer is None:
            return {}
        prefix = len(self._settings.topic_prefix)
        behind = {}
        for tp in self._consumer.assignment():
            try:
                end = self._consumer.highwater(tp)
                at = None if end is None else await self._consumer.position(tp)
            except (AssertionError, KafkaError):  # taken away meanwhile
                continue
            if at is not None:
                behind[tp.topic[prefix:], tp.partition] = max(0, end - at)
        return behind


@asynccontextmanager
async def _reader(settings: Settings, group: str | None) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **client_options(settings), group_id=group, enable_auto_commit=False
    )
    try:
        async with running(consumer):
            yield consumer
    except CLIENT_ERRORS as error:
        raise await connecting_error(settings, error) from error


async def end_offsets(settings: Settings, partitions: Iterable[tuple[str, int]]) -> Offsets:
    """One past the last offset of each (topic with prefix, partition).

    The embedded broker's answer to ListOffsets is the start of the last batch plus one, so the
    last batch is fetched and the high watermark that comes with it is believed.
    """
    wanted = [TopicPartition(*pair) for pair in partitions]
    if not wanted:  # aiokafka never comes back from asking about no partition at all
        return {}
    async with _reader(settings, None) as consumer:
        listed = await consumer.end_offsets(wanted)
        asked = {tp: offset for tp, offset in listed.items() if offset > 0}
        consumer.assign(list(asked))
        for tp, offset in asked.items():
            consumer.seek(tp, offset - 1)
        unknown = set(asked)
        while unknown:
            await consumer.getmany(*unknown, timeout_ms=500)
            unknown = {tp for tp in unknown if consumer.highwater(tp) is None}
        return {
            (tp.topic, tp.partition): max(offset, consumer.highwater(tp) if tp in asked else 0)
            for tp, offset in listed.items()
        }


async def begin_offsets(settings: Settings, partitions: Iterable[tuple[str, int]]) -> Offsets:
    """The first offset that is still there of each (topic with prefix, partition)."""
    wanted = [TopicPartition(*pair) for pair in partitions]
    if not wanted:
        return {}
    async with _reader(settings, None) as consumer:
        listed = await consumer.beginning_offsets(wanted)
        return {(tp.topic, tp.partition): offset for tp, offset in listed.items()}


async def offsets_at(
    settings: Settings, partitions: Iterable[tuple[str, int]], ts: float
) -> Offsets:
    """The first offset of each (topic with prefix, partition) whose record Kafka took at `ts` (UTC
    epoch seconds) or later; where there is none, the end."""
    wanted = [TopicPartition(*pair) for pair in partitions]
    ends = await end_offsets(settings, partitions)
    if not wanted:
        return {}
    async with _reader(settings, None) as consumer:
        found = await consumer.offsets_for_times(dict.fromkeys(wanted, max(0, round(ts * 1000))))
    return {
        (tp.topic, tp.partition): ends[tp.topic, tp.partition]
        if found.get(tp) is None
        else found[tp].offset
        for tp in wanted
    }


async def set_committed(settings: Settings, group: str, offsets: Offsets) -> bool:
    """Have a group of which nobody is a member go on at these offsets, by (topic with prefix,
    partition). False where somebody is."""
    if not offsets:
        return True
    async with _reader(settings, group) as consumer:
        wanted = {TopicPartition(*pair): offset for pair, offset in offsets.items()}
        consumer.assign(list(wanted))
        try:
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError):
            return False
        return True


async def committed_offsets(
    settings: Settings, group: str, partitions: Iterable[tuple[str, int]]
) -> Offsets:
    """What a group has committed of each (topic with prefix, partition); 0 where nothing yet."""
    async with _reader(settings, group) as consumer:
        return {pair: await consumer.committed(TopicPartition(*pair)) or 0 for pair in partitions}


async def group_lag(settings: Settings, group: str, partitions: Sequence[tuple[str, int]]) -> int:
    """Records of the (topic with prefix, partition)s that a group has not committed."""
    ends = await end_offsets(settings, partitions)
    done = await committed_offsets(settings, group, partitions)
    return sum(max(0, ends[pair] - done[pair]) for pair in partitions)
