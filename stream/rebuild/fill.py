"""The log folded into a version of the state that is not live, and kept at the log's end.

It is the stream worker's fold, by a reader of its own: no member of a consumer group, so that the
workers can come to this version, when it becomes live, while the fold goes on. What both of them
take in counts once, by the fences. How far it is stands in the state itself, so it goes on there
after any interruption.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import structlog
from msgspec import Struct

from feature_store.store import FeatureStore
from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.consumer import (
    OffsetGoneError,
    RecordConsumer,
    begin_offsets,
    committed_offsets,
    end_offsets,
    offsets_at,
    set_committed,
)
from stream.kafka.groups import stream_group
from stream.kafka.producer import EventProducer
from stream.kafka.records import Record, next_offsets
from stream.kafka.topics import partition_counts
from stream.workers.continuity import INPUTS, check_continuity
from stream.workers.ingest import Ingester
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)

Partition = tuple[str, int]
TICK_S = 2.0
"""Between two commits, and two looks at what else is to be known."""
MOST_FULL = 0.9
"""Share of Redis' memory beyond which nothing more is filled: the live state needs the rest."""
FETCH_WAIT_S = 0.1
NEAR_END_WITHIN_S = 30.0


class LogGoneError(OneBarError, RuntimeError):
    """The log begins after what a version of the state has taken in: what lies between is lost."""


class NoRoomError(OneBarError, RuntimeError):
    """Redis has not the memory for two versions of the state."""


class PartitionsCameError(OneBarError, RuntimeError):
    """A topic has more partitions than when the fill began."""


class GroupBusyError(OneBarError, RuntimeError):
    """Workers are at work on a version that is to be filled anew."""


class Span(Struct, frozen=True):
    """What of a partition a version of the state lacks: from `start` to before `end`. `begin` is
    the first offset that is there."""

    begin: int
    start: int
    end: int

    @property
    def missing(self) -> int:
        return max(0, self.end - self.start)


Spans = Mapping[Partition, Span]


async def spans_of(settings: Settings, store: FeatureStore, since: float | None = None) -> Spans:
    """What the version of these settings lacks of the log, by (topic, partition). Where nothing was
    taken in, behaviours are wanted from `since` on (UTC epoch seconds). Raises `LogGoneError`,
    `LogRewoundError`, `StateLostError`, and what Kafka and Redis do."""
    counts = await partition_counts(settings)
    prefix = settings.topic_prefix
    pairs = [(topic, p) for topic in INPUTS for p in range(counts.get(prefix + topic, 0))]
    reached = await store.reached(pairs)
    if reached:
        await check_continuity(settings, store, list(reached))
    names = {pair: (prefix + pair[0], pair[1]) for pair in pairs}
    begins = await begin_offsets(settings, names.values())
    ends = await end_offsets(settings, names.values())
    later: Mapping[Partition, int] = {}
    if since is not None:
        of_time = [names[pair] for pair in pairs if pair[0] == BEHAVIORS and pair not in reached]
        later = await offsets_at(settings, of_time, since)
    spans = {}
    for pair, name in names.items():
        begin = begins[name]
        start = reached[pair] + 1 if pair in reached else max(begin, later.get(name, 0))
        if start < begin:
            raise LogGoneError(
                f"{name[0]}/{name[1]} begins at offset {begin}, but version "
                f"{settings.state_version!r} of the state has taken in no more than offset "
                f"{start - 1}: what lies between is gone, and it can't be brought up to date. "
                f"Drop it (onebar rebuild drop {settings.state_version}) and rebuild"
            )
        spans[pair] = Span(begin, start, max(start, ends[name]))
    return spans


def wanted(records: Sequence[Record], since: float | None) -> Sequence[Record]:
    """Those that a version from this time on takes in: all but behaviours that Kafka took before;
    pure. Not every broker finds the offset of a time."""
    if since is None:
        return records
    return [each for each in records if each.topic != BEHAVIORS or each.timestamp >= since]


class Filler:
    """Fills one version. `run` it beside whatever waits for it with `caught_up`.

    Records that can't be processed are dead letters of the live version's workers; those that
    these have not come to yet are set aside here, too.
    """

    def __init__(
        self,
        settings: Settings,
        live: Settings,
        store: FeatureStore,
        producer: EventProducer,
        health: WorkerHealth,
        *,
        per_s: float | None = None,
        spares: bool = True,
    ) -> None:
        """`settings` and `store` are those of the version to fill, `live` those of the live one.
        `per_s`: take in so many events a second at most. `spares`: leave the live version room."""
        self._settings = settings
        self._live = live
        self._store = store
        self._producer = producer
        self._health = health
        self._per_s = per_s
        self.spares = spares
        self._judged: dict[Partition, int] = {}
        self._anew: frozenset[Partition] = frozenset()
        """Those that were made anew since the live version's workers read them."""
        self._done: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._consumer: RecordConsumer | None = None
        self._ingester: Ingester | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._since: float | None = None
        self.events = 0
        """Records taken in so far."""

    @property
    def refused(self) -> int:
        """Records that could not be processed."""
        return 0 if self._ingester is None else self._ingester.refused

    async def open(self, since: float | None = None) -> Spans:
        """Make out where to begin, and begin to read there. Raises what `spans_of` does, and
        `GroupBusyError`."""
        settings, store = self._settings, self._store
        spans = await spans_of(settings, store, since)
        reached = await store.reached(list(spans))
        fresh = {pair: span.start for pair, span in spans.items() if pair not in reached}
        begun = {pair: start - 1 for pair, start in fresh.items() if start > 0}
        await store.note_reached(begun)  # nothing before it is wanted
        self._done = dict(fresh)
        committed = await self._committed(settings)
        stale = {pair: start for pair, start in fresh.items() if committed[pair] > start}
        if stale and not await self._set_committed(stale):
            raise GroupBusyError(
                f"workers read as {stream_group(settings)}, for version "
                f"{settings.state_version!r} of the state, which has nothing yet: end those that "
                "ONEBAR_STATE_VERSION pins to it, or give another name (--to)"
            )
        self._since = since
        self._done = {pair: span.start for pair, span in spans.items()}
        self._ends = {pair: span.end for pair, span in spans.items()}
        judged = await self._committed(self._live)
        self._anew = frozenset(pair for pair, span in spans.items() if judged[pair] > span.end)
        await self._look()
        self._ingester = Ingester(
            store,
            self._producer,
            self._health,
            reached=reached | begun,
            future_allowance_s=settings.future_allowance_s,
            pseudonyms=Pseudonyms(settings.user_id_key),
            judged=self._was_judged,
        )
        self._consumer = RecordConsumer(
            settings, INPUTS, group=None, max_records=settings.stream_batch, start_from=self._done
        )
        await until_back(self._consumer.start, self._health)
        return spans

    async def close(self) -> None:
        """Read no more."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def run(self) -> None:
        """Take in what comes, for ever. Raises what `Ingester.take` does, `NoRoomError`, and
        `LogGoneError` where the log's oldest records go before they are read."""
        assert self._consumer is not None
        assert self._ingester is not None
        looked = time.monotonic()
        while True:
            began = time.monotonic()
            records = await self._fetch(self._consumer)
            if records:
                self._idle.clear()
                kept = wanted(records, self._since)
                await self._ingester.take(kept)
                if len(kept) < len(records):  # what is left out is done, too
                    passed = {pair: offset - 1 for pair, offset in next_offsets(records).items()}
                    await until_back(partial(self._store.note_reached, passed), self._health)
                self._done |= next_offsets(records)
                self.events += len(records)
                self._idle.set()
            if time.monotonic() - looked >= TICK_S:
                await until_back(self._look, self._health)
                looked = time.monotonic()
            if self._per_s is not None:
                await asyncio.sleep(began + len(records) / self._per_s - time.monotonic())

    async def _fetch(self, consumer: RecordConsumer) -> list[Record]:
        try:
            return await until_back(lambda: consumer.fetch(FETCH_WAIT_S), self._health)
        except OffsetGoneError as error:
            raise LogGoneError(
                f"the log's oldest records went before they were read ({error}): drop this version "
                f"(onebar rebuild drop {self._settings.state_version}) and rebuild from a time on "
                "that stays (--since)"
            ) from error

    async def left(self) -> int:
        """How many records it has not taken in, as far as is known."""
        assert self._consumer is not None
        unread = await self._consumer.lags()
        return sum(
            unread.get(pair, max(0, self._ends[pair] - done)) for pair, done in self._done.items()
        )

    async def caught_up(self) -> bool:
        """Whether it has taken in all that was in the log when this was called. Waits a while
        where it is near that."""
        assert self._consumer is not None
        ends = await self._end_offsets()
        try:
            async with asyncio.timeout(NEAR_END_WITHIN_S):
                for pair, end in ends.items():
                    while not await self._consumer.reached(*pair, end):
                        if await self.left() > self._settings.stream_batch * len(ends):
                            return False
                        await asyncio.sleep(0.02)
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def check_partitions(self) -> None:
        """Raises `PartitionsCameError`."""
        assert self._consumer is not None
        if await self._consumer.outgrown():
            raise PartitionsCameError("a topic was given more partitions: run the same again")

    async def hand_over(self) -> bool:
        """Have the workers that come to this version begin where this is. False where some are
        there already."""
        return await self._set_committed(self._done)

    @property
    def place(self) -> Mapping[Partition, int]:
        """How far it is: the next offset of each (topic, partition)."""
        return dict(self._done)

    async def taken_over(self, place: Mapping[Partition, int]) -> bool:
        """Whether the workers that came to this version have got to this place."""
        committed = await self._committed(self._settings)
        return all(committed[pair] >= offset for pair, offset in place.items())

    async def _look(self) -> None:
        """What the live version's workers have judged, and whether Redis has room."""
        judged = await self._committed(self._live)
        self._judged = {pair: at for pair, at in judged.items() if pair not in self._anew}
        vitals = await self._store.vitals() if self.spares else None
        if vitals and vitals.limit_bytes and vitals.used_bytes > MOST_FULL * vitals.limit_bytes:
            raise NoRoomError(
                f"{vitals.used_bytes / vitals.limit_bytes:.0%} of Redis' memory is in use: two "
                "versions of the state don't fit, and the live one needs what is left. Give Redis "
                "more (maxmemory) and run the same again, or drop this version (onebar rebuild "
                f"drop {self._settings.state_version})"
            )

    def _was_judged(self, record: Record) -> bool:
        return record.offset < self._judged.get((record.topic, record.partition), 0)

    def _named(self, pair: Partition) -> Partition:
        return self._settings.topic_prefix + pair[0], pair[1]

    async def _end_offsets(self) -> dict[Partition, int]:
        ends = await end_offsets(self._settings, map(self._named, self._done))
        return {pair: ends[self._named(pair)] for pair in self._done}

    async def _committed(self, settings: Settings) -> dict[Partition, int]:
        names = [self._named(pair) for pair in self._done]
        found = await committed_offsets(settings, stream_group(settings), names)
        return {pair: found[self._named(pair)] for pair in self._done}

    async def _set_committed(self, offsets: Mapping[Partition, int]) -> bool:
        named = {self._named(pair): offset for pair, offset in offsets.items()}
        return await set_committed(self._settings, stream_group(self._settings), named)
