"""Impressions into queries: what is done with a batch of them. Knows no loop and no offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import orjson
import structlog
from msgspec import UNSET

from feature_store.buckets import CorruptStateError
from feature_store.cache.codec import Lookup
from feature_store.cache.query_cache import QueryCache
from feature_store.redis.client import StoreCommandError
from feature_store.writes import Position
from onebar.process.tracing import carried, consuming, span
from onebar.recommending.recommend import (
    EvidenceChangedError,
    Grounding,
    Recommender,
    UnknownVideoError,
)
from onebar.records import Pair, QueryResult
from stream.events import QUERIES, Impression, InvalidEventError, parse
from stream.events.pseudonyms import NONE, Pseudonyms
from stream.kafka.producer import EventProducer, EventRefusedError, Message
from stream.kafka.records import Record
from stream.workers.dead_letters import dead_letter, set_aside
from stream.workers.metrics import CACHED_SECONDS, GENERATION_SECONDS, WorkerHealth
from stream.workers.metrics import IMPRESSIONS as COUNT
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)


def to_pair(record: Record, pseudonyms: Pseudonyms = NONE) -> Pair:
    """The (video, user) of an impression. Raises `InvalidEventError`."""
    event = pseudonyms.event(parse(record.value))
    if not isinstance(event, Impression):
        raise InvalidEventError(f"Expected an impression, got `{event.type}` - at `$.type`")
    return event.video_id, None if event.user_id is UNSET else event.user_id


def query_message(
    pair: Pair, result: QueryResult, k: int | None = None, record: Record | None = None
) -> Message:
    """What is told on `onebar.queries` of one generation: its first `k` queries, all where None.
    Its headers carry on the trace of the impression's `record`."""
    video_id, user_id = pair
    body: dict[str, object] = {
        "video_id": video_id,
        "queries": [{"text": query.text, "score": query.score} for query in result.queries[:k]],
        "rejected": result.rejected,
        "model": result.model,
        "evidence_digest": result.evidence_digest,
        "generated_at": result.generated_at,
    }
    if user_id is not None:
        body["user_id"] = user_id
    headers = () if record is None else carried(record.position)
    return QUERIES, video_id.encode(), orjson.dumps(body), headers


CLOCKS_APART_S = 5.0
"""How far the clocks of a feed and of a generator may be apart, at most usually."""


def cached(pair: Pair, lookup: Lookup) -> QueryResult | None:
    """What is cached for a pair; None where that is nothing, or no result."""
    body = lookup.video if pair[1] is None else lookup.personal
    try:
        return None if body is None else body.result()
    except CorruptStateError:
        return None


def is_fresh(lookup: Lookup, grounding: Grounding, now: float, passed: int) -> bool:
    """Whether what is cached for a pair is young, stands on the evidence of this moment, and has
    passed its rules."""
    body = lookup.video if grounding.pair[1] is None else lookup.personal
    if body is None or body.fresh_until <= now or body.passed != passed:
        return False
    found = cached(grounding.pair, lookup)
    return found is not None and found.evidence_digest == grounding.digest


def untold(
    record: Record,
    pair: Pair,
    lookup: Lookup,
    passed: int,
    k: int | None = None,
    *,
    again: bool = False,
) -> Iterator[Message]:
    """What is cached for an impression and has passed its rules, as a message, where it was made
    since the impression came, or the impression may have come `again`: a worker may have been ended
    between the cache and the topic. Told twice is better than never."""
    body = lookup.video if pair[1] is None else lookup.personal
    if body is None or body.passed != passed:
        return
    result = cached(pair, lookup)
    if result is not None and (again or result.generated_at >= record.timestamp - CLOCKS_APART_S):
        yield query_message(pair, result, k, record)


class Models(Protocol):
    """Whose model answers: `onebar.recommending.live.LiveModel`."""

    def use(self) -> AbstractContextManager[Recommender]: ...


class Generation:
    """Answers impressions, batch by batch; a batch ends on the model it began with."""

    def __init__(
        self,
        models: Models,
        cache: QueryCache,
        producer: EventProducer,
        health: WorkerHealth,
        *,
        late_after_s: float,
        pseudonyms: Pseudonyms = NONE,
        k: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pseudonyms = pseudonyms
        self._models = models
        self._cache = cache
        self._producer = producer
        self._health = health
        self._late_after_s = late_after_s
        self._k = k
        self._clock = clock

    async def take(
        self, records: Sequence[Record], again: Container[Position] = ()
    ) -> list[Record]:
        """Answer a batch, however long Redis or Kafka is away; the ones whose video is unknown. Of
        those that may have come `again` what is cached is told.

        When it returns, each other impression has its queries in the cache and on the topic, also
        where it has come again, or is skipped and counted, or is a dead letter. May be called for
        several batches at once; cancelling it is safe.
        """
        with consuming((each.position, each.topic, each.headers) for each in records):
            return await self._take(records, again)

    async def _take(self, records: Sequence[Record], again: Container[Position]) -> list[Record]:
        letters: list[Message] = []
        wanted: dict[Pair, Record] = {}
        late: dict[Pair, Record] = {}
        now = self._clock()
        for record in records:
            try:
                pair = to_pair(record, self._pseudonyms)
            except InvalidEventError as error:
                log.warning("dead_letter", offset=record.offset, reason=str(error)[:300])
                letters.append(dead_letter(record, error))
                COUNT.labels("dead_letter").inc()
                continue
            if now - record.timestamp > self._late_after_s:
                COUNT.labels("late").inc()
                CACHED_SECONDS.observe(now - record.timestamp)
                late[pair] = record
            elif pair in wanted:
                COUNT.labels("repeated").inc()
            else:
                wanted[pair] = record
        if letters:
            await set_aside(self._producer, letters, self._health)
        await self._tell_late({pair: late[pair] for pair in late if pair not in wanted}, again)
        try:
            unknown = await self._answer(wanted, again)
        except StoreCommandError as error:
            log.error("store_refused", error=str(error))
            unknown = await self._answer_each(wanted, again)
        return list(unknown.values())

    async def _tell_late(self, late: dict[Pair, Record], again: Container[Position]) -> None:
        """Nothing is generated for who waited too long; what was generated for them is told."""
        if not late:
            return
        pairs = list(late)
        try:
            lookups = await until_back(lambda: self._cache.lookup(pairs), self._health)
        except StoreCommandError as error:
            log.error("store_refused", error=str(error))
            return
        with self._models.use() as recommender:
            passed = recommender.gate.passed(self._clock())
        await self._tell(
            message
            for pair, lookup in zip(pairs, lookups, strict=True)
            for message in self._untold(late[pair], pair, lookup, passed, again)
        )

    def _untold(
        self,
        record: Record,
        pair: Pair,
        lookup: Lookup,
        passed: int,
        again: Container[Position],
    ) -> Iterator[Message]:
        return untold(record, pair, lookup, passed, self._k, again=record.position in again)

    async def _tell(self, messages: Iterable[Message]) -> None:
        told = list(messages)
        if not told:
            return
        try:
            with span("send to Kafka", queries=len(told)):
                await until_back(lambda: self._producer.send_messages(told), self._health)
        except EventRefusedError as error:  # the cache has them, the others were told
            log.error("queries_refused", error=str(error))

    async def _answer_each(
        self, wanted: dict[Pair, Record], again: Container[Position]
    ) -> dict[Pair, Record]:
        """Redis refused a command for good (a key of another type, say): the impression it
        refused is set aside, the others are answered."""
        unknown: dict[Pair, Record] = {}
        for pair, record in wanted.items():
            try:
                unknown |= await self._answer({pair: record}, again)
            except StoreCommandError as error:
                await set_aside(self._producer, [self._failed(pair, record, error)], self._health)
        return unknown

    def _failed(self, pair: Pair, record: Record, error: Exception) -> Message:
        log.error("generation_failed", video_id=pair[0], error=f"{type(error).__name__}: {error}")
        COUNT.labels("failed").inc()
        return dead_letter(record, error)

    async def _answer(
        self, wanted: dict[Pair, Record], again: Container[Position]
    ) -> dict[Pair, Record]:
        """Answer these; the ones whose video is not known (yet)."""
        if not wanted:
            return {}
        with self._models.use() as recommender:
            return await self._answer_by(recommender, wanted, again)

    async def _answer_by(
        self, recommender: Recommender, wanted: dict[Pair, Record], again: Container[Position]
    ) -> dict[Pair, Record]:
        started = self._clock()
        pairs = list(wanted)
        lookups = await until_back(lambda: self._cache.lookup(pairs), self._health)
        read = await until_back(lambda: recommender.evidence(pairs), self._health)
        passed = recommender.gate.passed(started)
        groundings: list[Grounding] = []
        messages: list[Message] = []
        for grounding, lookup in zip(read, lookups, strict=True):
            if is_fresh(lookup, grounding, started, passed):
                record = wanted[grounding.pair]
                messages += self._untold(record, grounding.pair, lookup, passed, again)
            else:
                groundings.append(grounding)
        due = [grounding.pair for grounding in groundings]
        COUNT.labels("fresh").inc(len(pairs) - len(due))
        if not due:
            await self._tell(messages)
            return {}

        async def generate() -> list[QueryResult | Exception]:
            # What was read serves one attempt: after an outage a user may have been deleted.
            read = groundings.copy() or await recommender.evidence(due)
            groundings.clear()
            return await recommender.answer(read)

        results = await until_back(generate, self._health)
        unknown: dict[Pair, Record] = {}
        now = self._clock()
        for pair, result in zip(due, results, strict=True):
            if isinstance(result, QueryResult):
                COUNT.labels("rejected" if result.rejected else "generated").inc()
                CACHED_SECONDS.observe(max(0.0, now - wanted[pair].timestamp))
                messages.append(query_message(pair, result, self._k, wanted[pair]))
            elif isinstance(result, (UnknownVideoError, EvidenceChangedError)):
                unknown[pair] = wanted[pair]
            else:
                messages.append(self._failed(pair, wanted[pair], result))
        GENERATION_SECONDS.observe(max(0.0, now - started))
        await self._tell(messages)
        return unknown
