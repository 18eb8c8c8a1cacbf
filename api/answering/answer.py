"""One answer: cache, else generate inside the budget, else the best fallback. Never later.

Every wait here ends at the request's deadline, which counts from its arrival; what is at hand
then is the answer, and it says what it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from binascii import hexlify
from collections.abc import Awaitable, Callable, Sequence
from struct import unpack

import msgspec
import orjson
import structlog
from msgspec import Struct

from api.answering.coalesce import Coalescer
from api.answering.explore import Exploration, explored
from api.answering.model import Model
from api.answering.refresh import Refresher
from api.http.metrics import ANSWERS, FALLBACKS, SHEDS, STALE
from api.http.schemas import Answer, Fallback, Reason
from feature_store.buckets import CorruptStateError
from feature_store.cache.codec import CachedBody, Lookup
from feature_store.redis.client import StoreUnavailableError
from onebar.gating.gate import Gate, about_of
from onebar.gating.held import count_held
from onebar.gating.rules import About
from onebar.gating.wants import Wants, select
from onebar.generator.batching import DeadlineExceededError, QueueFullError
from onebar.recommending.candidates import Reason as Rejection
from onebar.recommending.candidates import choose
from onebar.recommending.grounding import presentable
from onebar.recommending.material import material
from onebar.recommending.recommend import EvidenceChangedError, UnknownVideoError
from onebar.recommending.settling import settle
from onebar.records import Candidate, Features, Pair, QueryResult

log = structlog.get_logger(__name__)

MARGIN_S = 0.002
"""Kept back of a budget for putting the answer together, but never more than a tenth of it."""
LOOKUP_BUDGET_MS = 50.0
"""What a look into the cache may take where neither the request nor the settings grant any time."""

ID_DIGITS = 24

Hit = tuple[Pair, CachedBody]

_CACHE = ANSWERS.labels("cache", "")
_GENERATED = ANSWERS.labels("generated", "")
_QUERY = b'{"text":'


class Ask(Struct, frozen=True, gc=False):
    """How a request wants to be answered.

    `deadline` is in loop time. `k` None takes the queries as they are kept, and `wants` None all of
    them; with an `exploration` there is a `k`. Without `generate` only the cache and the fallbacks
    are used. A `peek` leaves no trace: it is not counted, and renews nothing.
    """

    deadline: float
    k: int | None = None
    generate: bool = True
    peek: bool = False
    wants: Wants | None = None
    exploration: Exploration | None = None


class Answerer:
    """Answers pairs with JSON objects, ready to send."""

    def __init__(
        self,
        *,
        lookups: Coalescer[Pair, Lookup],
        lookup_many: Callable[[Sequence[Pair]], Awaitable[list[Lookup]]],
        at_hand: Callable[[Sequence[Pair], float], list[CachedBody | None]],
        features: Coalescer[Pair, Features],
        model: Model,
        refresher: Refresher,
        gate: Gate,
        k: int,
        budget_ms: float,
        max_generating: int,
        kept: int | None = None,
        exploration: Exploration | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lookups = lookups
        self._lookup_many = lookup_many
        self._at_hand = at_hand
        self._features = features
        self._model = model
        self._refresher = refresher
        self._gate = gate
        self._k = k
        self._kept = k if kept is None else kept
        self._exploration = exploration
        self._budget_ms = budget_ms
        self._max_generating = max_generating
        self._clock = clock
        self.generating = 0

    def ask(
        self,
        arrived: float,
        *,
        k: int | None,
        budget_ms: float | None,
        wants: Wants | None = None,
    ) -> Ask:
        """The terms of a request that arrived at `arrived` (loop time).

        A budget of 0 means: generate nothing. The look into the cache then has the usual budget.
        """
        granted = self._budget_ms if budget_ms is None else budget_ms
        deadline = arrived + self._allowance_s(granted)
        if self._exploration is None:
            return Ask(deadline, k, granted > 0, wants=wants)
        return Ask(deadline, k or self._k, granted > 0, wants=wants, exploration=self._exploration)

    def peek(self, arrived: float) -> Ask:
        """The terms of a look that generates nothing, leaves no trace, and nothing to chance."""
        terms = self.ask(arrived, k=None, budget_ms=0)
        return msgspec.structs.replace(terms, peek=True, exploration=None)

    def _allowance_s(self, budget_ms: float) -> float:
        budget_s = (budget_ms or self._budget_ms or LOOKUP_BUDGET_MS) / 1000
        return budget_s - min(MARGIN_S, budget_s / 10)

    async def one(self, pair: Pair, ask: Ask) -> bytes:
        """The answer for one pair: a JSON object."""
        if not self._gate.open:
            return self._empty(pair, ask, "store_unavailable")
        now = self._clock()
        [body] = self._at_hand((pair,), now)
        if body is None:
            try:
                found = await self._lookups.ask(pair, ask.deadline)
            except Exception as error:
                return self._empty(pair, ask, _why(pair, error))
            body = _own(pair, found)
            if body is None:
                return await self._miss(pair, found, ask)
            now = self._clock()
        if body.passed != self._gate.passed(now):
            checked = await self._check(pair, body, ask)
            if not isinstance(checked, CachedBody):
                return self._empty(pair, ask, checked)
            body, now = checked, self._clock()
        if not ask.peek:
            _CACHE.inc()
            self._renew([(pair, body)], now)
        return _CACHED % _values([(pair, body)], ask, now)

    async def many(self, pairs: Sequence[Pair], ask: Ask) -> bytes:
        """The answers: a JSON array, in the order of the pairs. They share the deadline, and their
        round trips."""
        if not self._gate.open:
            return b"[%b]" % b",".join(self._empty(p, ask, "store_unavailable") for p in pairs)
        now = self._clock()
        bodies = self._at_hand(pairs, now)
        made: dict[int, bytes] = {}
        if not all(bodies):
            made = await self._read(pairs, bodies, ask)
            now = self._clock()
        passed = self._gate.passed(now)
        if any(body is not None and body.passed != passed for body in bodies):
            made |= await self._check_all(pairs, bodies, passed, ask)
            now = self._clock()
        hits = [(pair, body) for pair, body in zip(pairs, bodies, strict=True) if body is not None]
        if not ask.peek:
            _CACHE.inc(len(hits))
            self._renew(hits, now)
        forms = [
            _CACHED if body is not None else made[at].replace(b"%", b"%%")
            for at, body in enumerate(bodies)
        ]
        # One formatting for all, as one for each takes half as long again.
        return b"[%b]" % b",".join(forms) % _values(hits, ask, now)

    async def _read(
        self, pairs: Sequence[Pair], bodies: list[CachedBody | None], ask: Ask
    ) -> dict[int, bytes]:
        """Put into `bodies` what Redis has of those that are None; the answers for the rest."""
        away = [at for at, body in enumerate(bodies) if body is None]
        found = await self._lookup_all([pairs[at] for at in away], ask.deadline)
        if not isinstance(found, list):
            return {at: self._empty(pairs[at], ask, found) for at in away}
        misses: dict[int, Awaitable[bytes]] = {}
        for at, lookup in zip(away, found, strict=True):
            bodies[at] = _own(pairs[at], lookup)
            if bodies[at] is None:
                misses[at] = self._miss(pairs[at], lookup, ask)
        return dict(zip(misses, await asyncio.gather(*misses.values()), strict=True))

    async def _check(self, pair: Pair, body: CachedBody, ask: Ask) -> CachedBody | Reason:
        """A body that passed other rules than those of this moment, as these let it pass. It is
        also due to be made anew, for what they hold back no more and what they pin."""
        self._refresher.want(pair)
        about = About(pair[0])
        if self._gate.rules.asks_about:
            try:
                async with asyncio.timeout_at(ask.deadline):
                    known = await self._features.ask((pair[0], None))
            except Exception as error:
                return _why(pair, error)
            about = about_of(pair[0], known)
        try:
            result = body.result()
        except CorruptStateError as error:
            return _why(pair, error)
        gated = self._gate.apply(result.queries, about, self._clock(), pins=not result.rejected)
        count_held(gated.held)
        queries = gated.queries[: self._kept]
        shown = msgspec.structs.replace(result, queries=queries, rejected=not queries)
        if shown.rejected and not result.rejected:
            shown = msgspec.structs.replace(shown, rejection=str(Rejection.HELD_BACK))
        return msgspec.structs.replace(body, body=_encode(shown)[:-1])

    async def _check_all(
        self, pairs: Sequence[Pair], bodies: list[CachedBody | None], passed: int, ask: Ask
    ) -> dict[int, bytes]:
        """Put into `bodies` what the rules of this moment let pass; the answers for those of which
        that can't be said."""
        at = [n for n, body in enumerate(bodies) if body is not None and body.passed != passed]
        found = await asyncio.gather(
            *(self._check(pairs[n], body, ask) for n in at if (body := bodies[n]) is not None)
        )
        made: dict[int, bytes] = {}
        for number, checked in zip(at, found, strict=True):
            if isinstance(checked, CachedBody):
                bodies[number] = checked
            else:
                bodies[number] = None
                made[number] = self._empty(pairs[number], ask, checked)
        return made

    def _renew(self, hits: Sequence[Hit], now: float) -> None:
        """Have what is about to be served generated anew, where it is due."""
        retired = self._model.retired
        for pair, body in hits:
            if now >= body.fresh_until or (retired and body.model in retired):
                STALE.inc()
                self._refresher.want(pair)

    async def _lookup_all(self, pairs: Sequence[Pair], deadline: float) -> list[Lookup] | Reason:
        """Many at once are a round trip of their own: nothing is gained by waiting for others."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._lookup_many(pairs)
        except Exception as error:
            return _why(pairs[0], error)

    async def _miss(self, pair: Pair, found: Lookup, ask: Ask) -> bytes:
        # What a fallback needs is read beside the generation, in the same round trip.
        features = None if found.video is not None else self._features.ask((pair[0], None))
        try:
            outcome = await self._generate(pair, ask)
            if isinstance(outcome, QueryResult):
                _GENERATED.inc()
                return self._from_result(pair, outcome, ask)
            if found.video is not None:
                body = found.video
                if body.passed != self._gate.passed(self._clock()):
                    checked = await self._check((pair[0], None), body, ask)
                    if not isinstance(checked, CachedBody):
                        return self._empty(pair, ask, checked)
                    body = checked
                _count("video", outcome, ask)
                form = _form(b'"fallback","fallback":"video","reason":"%b"' % outcome.encode())
                return form % _values([(pair, body)], ask, self._clock())
            assert features is not None
            return await self._without_cache(pair, features, outcome, ask)
        finally:
            if features is not None and not features.done():
                features.cancel()

    async def _generate(self, pair: Pair, ask: Ask) -> QueryResult | Reason:
        """A result by the deadline, or why there is none."""
        if not ask.generate or not self._model.wanted:
            return "not_generating"
        recommender = self._model.recommender
        if recommender is None:
            return "model_unavailable"
        if self.generating >= self._max_generating:
            SHEDS.inc()
            return "overload"
        self.generating += 1
        try:
            [outcome] = await recommender.recommend([pair], deadline=ask.deadline)
        except Exception as error:
            outcome = error
        finally:
            self.generating -= 1
        match outcome:
            case QueryResult():
                return outcome
            case DeadlineExceededError():
                return "deadline"
            case QueueFullError():
                SHEDS.inc()
                return "overload"
            case UnknownVideoError():
                return "unknown_video"
            case EvidenceChangedError():
                return "evidence_changed"
            case StoreUnavailableError():
                return "store_unavailable"
            case _:
                log.error("generation_failed", video_id=pair[0], exc_info=outcome)
                return "engine_failed"

    async def _without_cache(
        self, pair: Pair, reading: asyncio.Future[Features], reason: Reason, ask: Ask
    ) -> bytes:
        """The best that can be said from what is known of the video, if that came in time."""
        try:
            async with asyncio.timeout_at(ask.deadline):
                known = await reading
        except TimeoutError:
            return self._empty(pair, ask, "deadline")
        except StoreUnavailableError:
            return self._empty(pair, ask, "store_unavailable")
        except Exception:
            log.exception("features_failed", video_id=pair[0])
            return self._empty(pair, ask, "store_failed")
        chosen = from_anchors(known)
        match chosen:
            case Rejection.REMOVED:
                return self._empty(pair, ask, "removed", rejected=True)
            case Rejection.SENSITIVE:
                return self._empty(pair, ask, "sensitive", rejected=True)
            case Rejection.RISKY:
                return self._empty(pair, ask, "risky", rejected=True)
            case Rejection():
                chosen = ()
        settled = settle(chosen, known, leave_out="nothing", personal=False)
        gated = self._gate.apply(settled, about_of(pair[0], known), self._clock())
        count_held(gated.held)
        named = request_id()
        queries = _wanted(gated.queries, ask, named)[: ask.k or self._k]
        if not queries:
            return self._empty(pair, ask, reason if known.known else "unknown_video")
        _count("anchors", reason, ask)
        return _encode(
            Answer(
                request_id=named,
                video_id=pair[0],
                user_id=pair[1],
                queries=queries,
                source="fallback",
                rejected=False,
                fallback="anchors",
                reason=reason,
            )
        )

    def _empty(self, pair: Pair, ask: Ask, reason: Reason, *, rejected: bool = False) -> bytes:
        _count("empty", reason, ask)
        return _encode(
            Answer(
                request_id=request_id(),
                video_id=pair[0],
                user_id=pair[1],
                queries=(),
                source="fallback",
                rejected=rejected,
                fallback="empty",
                reason=reason,
            )
        )

    def _from_result(self, pair: Pair, result: QueryResult, ask: Ask) -> bytes:
        named = request_id()
        return _encode(
            Answer(
                request_id=named,
                video_id=pair[0],
                user_id=pair[1],
                queries=_wanted(result.queries, ask, named),
                source="generated",
                rejected=result.rejected,
                rejection=result.rejection,
                model=result.model,
                evidence_digest=result.evidence_digest,
                generated_at=result.generated_at,
                age_s=_age(self._clock(), result.generated_at),
            )
        )


def _why(pair: Pair, error: BaseException) -> Reason:
    """What a failed look into the cache means for the answer."""
    match error:
        case TimeoutError():
            return "deadline"
        case StoreUnavailableError():
            return "store_unavailable"
        case _:
            log.error("lookup_failed", video_id=pair[0], exc_info=error)
            return "store_failed"


def _own(pair: Pair, found: Lookup) -> CachedBody | None:
    """The body that answers exactly this pair, if there is one."""
    return found.video if pair[1] is None else found.personal


def from_anchors(known: Features) -> tuple[Candidate, ...] | Rejection:
    """What other people searched after a video, as queries that a bar has room for, or why none is.
    Pure.

    They are chosen as for an answer with a generation (`choose`), the strongest first. The score
    is the anchor's weight.
    """
    chosen = choose(material(known, ()), (), len(known.anchors) or 1, from_text=False)
    if chosen.reason is not None:
        return chosen.reason
    weights = {presentable(anchor.query): anchor.weight for anchor in reversed(known.anchors)}
    queries = (Candidate(query.text, weights[query.text]) for query in chosen.queries)
    return tuple(sorted(queries, key=lambda query: (-query.score, query.text)))


def request_id() -> str:
    """A name for one answer, to be sent back with exposures and clicks: `ID_DIGITS` hexadecimal
    digits."""
    return _request_ids(1)[0].decode()


def _request_ids(count: int) -> tuple[bytes, ...]:
    """So many of them.

    They name and keep no secret, so the operating system is not asked for them each time.
    """
    return unpack(f"{ID_DIGITS}s" * count, hexlify(random.randbytes(count * ID_DIGITS // 2)))


def _form(source: bytes) -> bytes:
    """How cached bytes become an answer, once `_values` are put into it."""
    return b'%b,"request_id":"%b","user_id":%b,"source":' + source + b',"age_s":%.3f}'


_CACHED = _form(b'"cache"')


def _values(hits: Sequence[Hit], ask: Ask, now: float) -> tuple[bytes | float, ...]:
    """For each pair its cached bytes and the fields of this answer that go behind them."""
    as_kept = ask.k is None and ask.wants is None  # so without exploration too
    values: list[bytes | float] = []
    for ((_, user_id), body), request_id in zip(hits, _request_ids(len(hits)), strict=True):
        age_s = now - body.generated_at
        values += (
            body.body if as_kept else _cut(body, ask, request_id),
            request_id,
            _json(user_id),
            age_s if age_s > 0 else 0.0,
        )
    return tuple(values)


def _cut(body: CachedBody, ask: Ask, named: bytes) -> bytes:
    """Cached bytes with the queries that are wanted in the answer named so; parsed only where they
    may not be all."""
    whole = ask.wants is None and ask.exploration is None
    if whole and (ask.k is None or body.body.count(_QUERY) <= ask.k):
        return body.body
    result = body.result()
    queries = _wanted(result.queries, ask, named.decode())
    return _encode(msgspec.structs.replace(result, queries=queries))[:-1]


def _wanted(queries: tuple[Candidate, ...], ask: Ask, named: str) -> tuple[Candidate, ...]:
    found = queries if ask.wants is None else select(queries, ask.wants)
    if ask.exploration is None or ask.k is None:
        return found[: ask.k]
    return explored(found, ask.k, ask.exploration, named)


def _age(now: float, generated_at: float) -> float:
    return max(0.0, round(now - generated_at, 3))


def _count(fallback: Fallback, reason: Reason, ask: Ask) -> None:
    if ask.peek:
        return
    ANSWERS.labels("fallback", fallback).inc()
    FALLBACKS.labels(reason).inc()


_encode = msgspec.json.Encoder().encode
_json = orjson.dumps
