"""Records into state: parse, judge, fold, apply, and set aside what can't be. Knows no Faust."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct

from feature_store.plan import Plan
from feature_store.redis.client import StoreCommandError
from feature_store.store import ApplyStats, FeatureStore
from feature_store.writes import (
    HistoryPut,
    InvalidWriteError,
    Position,
    RulePut,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.evidence.text import clean_video
from onebar.process.tracing import consuming, span
from stream.events import InvalidEventError
from stream.events.fold import fold
from stream.events.pseudonyms import NONE, Pseudonyms
from stream.kafka.order import Order
from stream.kafka.producer import EventProducer, Message
from stream.kafka.records import Record, event_in, next_offsets
from stream.workers.continuity import StateLostError
from stream.workers.dead_letters import FutureEventError, dead_letter, set_aside
from stream.workers.metrics import (
    APPLY_SECONDS,
    BATCH_EVENTS,
    EVENTS,
    FRESHNESS_SECONDS,
    TAKEN,
    WorkerHealth,
)
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)

PlacedWrite = tuple[Write, Position]
Partition = tuple[str, int]
_PASSED_OVER: Message = ("", None, None, ())
Verify = Callable[[Collection[Partition]], Awaitable[Mapping[Partition, int]]]
"""How far the state has taken these in; raises where it lacks what was committed of them."""


def to_writes(
    record: Record, future_allowance_s: float, pseudonyms: Pseudonyms = NONE
) -> tuple[str, list[PlacedWrite]]:
    """The type of the event in a record, and what it changes. Pure.

    Raises `InvalidEventError`, `FutureEventError` and `InvalidWriteError`: a dead letter each.
    """
    event = event_in(record, pseudonyms)
    if event.ts > record.timestamp + future_allowance_s:
        raise FutureEventError(event.ts, record.timestamp, future_allowance_s)
    position = record.position
    return event.type, [(write, position) for write in fold(event, clean_video)]


class _Prepared(Struct, frozen=True):
    """A batch, read and planned: all that can be done of it before its turn comes."""

    records: Sequence[Record]
    good: Sequence[tuple[str, Record]]
    entries: Sequence[PlacedWrite]
    plan: Plan
    letters: Sequence[Message]


class Ingester:
    """Takes batches of records in. When `take` returns, every record of the batch has had its
    whole effect or is a dead letter that Kafka has acknowledged; its offset may be committed.

    The next batch of a partition may be given before the one before has returned: while Redis is
    busy with one, the next is read and planned. They have their effect in the order in which they
    were given, and one behind a batch that fails fails with it. `reached` is how far the state had
    taken in each (topic, partition) before. After `assigned`, `verify` is asked before the first
    batch. What can't be processed and has been `judged` before is passed over: there is a letter of
    it.
    """

    def __init__(
        self,
        store: FeatureStore,
        producer: EventProducer,
        health: WorkerHealth,
        *,
        reached: Mapping[Partition, int] | None = None,
        verify: Verify | None = None,
        future_allowance_s: float = 60.0,
        pseudonyms: Pseudonyms = NONE,
        judged: Callable[[Record], bool] = lambda record: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pseudonyms = pseudonyms
        self._judged = judged
        self._store = store
        self._producer = producer
        self._health = health
        self._reached = dict(reached or {})
        self._verify = verify
        self._unverified: dict[Partition, object] = {}  # each assignment is one of its own
        self._future_allowance_s = future_allowance_s
        self._clock = clock
        self._order = Order()
        self.refused = 0
        """Records that could not be processed so far."""

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """These come to this worker from now on: another may have had them in between, on a Redis
        that has lost what it took in since."""
        self._unverified.update((pair, object()) for pair in partitions)

    async def check(self) -> None:
        """Raises `StateLostError` where Redis has lost what it was known to have taken in, or
        what was committed of a partition that came to this worker; also where nothing comes on
        it. Raises `StoreUnavailableError` and `KafkaUnavailableError` where they can't be asked."""
        await self._verify_now(dict(self._unverified))
        known = dict(self._reached)
        found = await self._store.reached(list(known))
        for pair, offset in known.items():
            self._compare(pair, found.get(pair, -1), offset)

    async def take(self, records: Sequence[Record]) -> None:
        """Take a batch in, however long Redis or Kafka is away. Cancelling it is safe: what was
        applied is fenced, what was not comes again.

        Raises `StateLostError` where Redis has lost what earlier batches put into it, and
        `PredecessorFailedError` where one of its partition that was given before it failed.
        """
        with (
            self._order.join((each.topic, each.partition) for each in records) as place,
            consuming((each.position, each.topic, each.headers) for each in records),
        ):
            batch = self._prepare(records)
            await place.turn()
            await self._verify_new(records)
            refused = await self._apply(batch)
            place.let_pass()
            await self._set_aside_all([*batch.letters, *refused])
            await place.first()
            await self._note_reached(records)
        now = self._clock()
        for kind, count in Counter(kind for kind, _ in batch.good).items():
            TAKEN.labels(kind).inc(count)
        FRESHNESS_SECONDS.observe_all(max(0.0, now - each.timestamp) for _, each in batch.good)
        self._health.beat()

    def _prepare(self, records: Sequence[Record]) -> _Prepared:
        entries: list[PlacedWrite] = []
        good: list[tuple[str, Record]] = []
        letters: list[Message] = []
        for record in records:
            try:
                kind, writes = to_writes(record, self._future_allowance_s, self._pseudonyms)
            except (InvalidEventError, FutureEventError, InvalidWriteError) as error:
                letters.append(self._set_aside(record, error))
            else:
                good.append((kind, record))
                entries += writes
        self._health.beat()
        return _Prepared(records, good, entries, self._store.plan(entries), letters)

    async def _set_aside_all(self, letters: Sequence[Message]) -> None:
        self.refused += len(letters)
        new = [letter for letter in letters if letter is not _PASSED_OVER]
        if new:
            await set_aside(self._producer, new, self._health)

    async def _verify_new(self, records: Sequence[Record]) -> None:
        if not self._unverified:
            return
        here = {(record.topic, record.partition) for record in records}
        new = {pair: mark for pair, mark in self._unverified.items() if pair in here}
        if new:
            await until_back(lambda: self._verify_now(new), self._health)

    async def _verify_now(self, new: Mapping[Partition, object]) -> None:
        if new and self._verify is not None:
            for pair, offset in (await self._verify(new.keys())).items():
                self._reached[pair] = max(offset, self._reached.get(pair, -1))
        for pair, mark in new.items():
            if self._unverified.get(pair) is mark:
                del self._unverified[pair]

    async def _note_reached(self, records: Sequence[Record]) -> None:
        reached = {pair: offset - 1 for pair, offset in next_offsets(records).items()}
        before = await until_back(
            lambda: self._store.note_reached(reached, self._reached), self._health
        )
        for pair, noted in before.items():
            self._compare(pair, noted, self._reached.get(pair, -1))
            self._reached[pair] = max(noted, reached[pair])

    def _compare(self, pair: Partition, found: int, known: int) -> None:
        if found < known:
            raise StateLostError(*pair, found, known, self._store.keys.state_version)

    async def _apply(self, batch: _Prepared) -> list[Message]:
        """Letters of those that Redis refused."""
        if not batch.entries:
            return []
        started = self._clock()
        try:
            with span("apply", writes=len(batch.entries)):
                stats = await until_back(lambda: self._store.carry_out(batch.plan), self._health)
        except StoreCommandError as error:
            return await self._apply_each(batch.entries, batch.records, error)
        BATCH_EVENTS.observe(len(batch.records))
        APPLY_SECONDS.observe(max(0.0, self._clock() - started))
        _count(batch.entries, stats)
        return []

    async def _apply_each(
        self, entries: Sequence[PlacedWrite], records: Sequence[Record], cause: StoreCommandError
    ) -> list[Message]:
        """Redis refused a command for good (a key of another type, say): the records whose own
        writes it refuses are set aside, the others take effect."""
        log.error("store_refused", error=str(cause))
        by_position = {record.position: record for record in records}
        letters: dict[Position, Message] = {}
        for entry in entries:
            write = entry
            try:
                stats = await until_back(
                    lambda write=write: self._store.apply([write]),  # type: ignore[misc]
                    self._health,
                )
                _count([entry], stats)
            except StoreCommandError as error:
                position = entry[1]
                letters.setdefault(position, self._set_aside(by_position[position], error))
        return list(letters.values())

    def _set_aside(self, record: Record, error: Exception) -> Message:
        if self._judged(record):
            return _PASSED_OVER
        EVENTS.labels("unknown", "dead_letter").inc()
        log.warning(
            "dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            bytes=len(record.value),
            reason=f"{type(error).__name__}: {error}"[:300],
        )
        return dead_letter(record, error)


_TYPES: dict[type, str] = {
    VideoPut: "video",
    HistoryPut: "history",
    UserDelete: "deletion",
    RulePut: "rule",
}


def _count(entries: Sequence[PlacedWrite], stats: ApplyStats) -> None:
    """Count what became of these writes: of behaviour, some may have counted before."""
    kinds = Counter(_TYPES.get(type(write), "behavior") for write, _ in entries)
    outcomes = {
        **{(kind, "applied"): count for kind, count in kinds.items() if kind != "behavior"},
        ("behavior", "applied"): kinds["behavior"] - stats.fenced - stats.duplicates,
        ("behavior", "fenced"): stats.fenced,
        ("behavior", "duplicate"): stats.duplicates,
    }
    for (kind, outcome), count in outcomes.items():
        if count:
            EVENTS.labels(kind, outcome).inc(count)
