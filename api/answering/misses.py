"""What the cache has no answer for: generated in time, else the best fallback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from api.answering.coalesce import Coalescer
from api.answering.forms import (
    Ask,
    anchors,
    empty,
    from_anchors,
    from_body,
    from_result,
    request_id,
    wanted,
    why,
)
from api.answering.model import Model
from api.answering.recheck import Recheck
from api.http.lag import Lag
from api.http.metrics import ANSWERS, FALLBACKS, SHEDS
from api.http.schemas import Fallback, Reason
from feature_store.cache.codec import CachedBody, Lookup
from feature_store.redis.client import StoreUnavailableError
from onebar.gating.gate import Gate, about_of, own_anchors
from onebar.gating.held import count_held
from onebar.generator.batching import DeadlineExceededError, QueueFullError
from onebar.process.tracing import note
from onebar.process.turns import PIECE_S, turns
from onebar.recommending.candidates import Rejection
from onebar.recommending.recommend import EvidenceChangedError, UnknownVideoError
from onebar.recommending.settling import LeaveOut, settle
from onebar.records import Candidate, Features, Pair, QueryResult

log = structlog.get_logger(__name__)

READ_TOGETHER = 32
"""Pairs whose features are read in one round trip: what comes back is decoded at once."""
FALLBACKS_FROM = 0.5
"""Part of a batch's time after which fallbacks are made ready beside the generation: to make them
when it has passed would be too late."""

ROUNDS = 4
"""Rounds of the event loop between the deadline of a batch's work and the end of its answer."""
FEW_REQUESTS = 4
"""Requests that queries are made for before anything is said to be too much."""
USUAL_S = 0.1
"""The time in which the pairs of batches that are let in at once can be generated, about."""

_GENERATED = ANSWERS.labels("generated", "")
_BARRED: dict[Rejection, Reason] = {
    Rejection.REMOVED: "removed",
    Rejection.SENSITIVE: "sensitive",
    Rejection.RISKY: "risky",
}

Miss = tuple[Pair, Lookup]
"""A pair, and what the cache has of it: maybe its video's body, never its own."""


class Fallen(Struct, frozen=True):
    """What is shown where nothing was generated: the anchors, or nothing; `named` is what the
    answer is called. `verdict` is why nothing may be shown, whatever kept the generation from being
    made."""

    queries: tuple[Candidate, ...] = ()
    named: str = ""
    verdict: Reason | None = None


class _Batch:
    """The misses of a batch, and how far they have come: what is here when their time is over is
    what they are answered with.

    `known` is what the store has of a pair, `outcomes` what became of its generation, `ready` its
    fallback; `reason` is why a pair has no outcome.
    """

    def __init__(self, misses: Sequence[Miss], ask: Ask) -> None:
        self.misses = misses
        self.ask = ask
        self.reason: Reason = "deadline"
        self.known: dict[Pair, Features] = {}
        self.outcomes: dict[Pair, QueryResult | Exception] = {}
        self.ready: dict[Pair, Fallen] = {}

    def learn(self, pair: Pair, read: Features | BaseException) -> None:
        """What was read of a pair, or why nothing was."""
        if isinstance(read, Features):
            self.known[pair] = read
        elif isinstance(read, Exception):
            self.ready[pair] = Fallen(verdict=why(pair, read))

    @property
    def bare(self) -> list[Pair]:
        """The pairs that are known and have not even a body of their video."""
        return [pair for pair, found in self.misses if found.video is None and pair in self.known]

    def lacks(self, pair: Pair) -> bool:
        """Whether a pair has neither a result nor a fallback yet."""
        return pair not in self.ready and not isinstance(self.outcomes.get(pair), QueryResult)


class Misses:
    """Answers pairs that the cache has no body for."""

    def __init__(
        self,
        *,
        features: Coalescer[Pair, Features],
        counted: Coalescer[Pair, Features],
        model: Model,
        gate: Gate,
        recheck: Recheck,
        lag: Lag,
        k: int,
        max_generating: int,
        max_batched: int,
        leave_out: LeaveOut = "nothing",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._features = features
        self._counted = counted
        self._model = model
        self._gate = gate
        self._recheck = recheck
        self._lag = lag
        self._k = k
        self._max_generating = max_generating
        self._max_batched = max_batched
        self._leave_out: LeaveOut = leave_out
        self._clock = clock
        self.generating = 0
        """Pairs that queries are being made for."""
        self.working = 0
        """Requests that they came with."""
        self.batched = 0
        """Pairs of the batches among these."""

    @property
    def _reads(self) -> Coalescer[Pair, Features]:
        """What reads features as the model's recommender does, so that both share a round trip."""
        recommender = self._model.recommender
        counted = recommender is not None and recommender.counted
        return self._counted if counted else self._features

    async def one(self, pair: Pair, found: Lookup, ask: Ask) -> bytes:
        """The answer for one pair."""
        # What a fallback needs is read beside the generation, in the same round trip.
        features = None if found.video is not None else self._reads.ask((pair[0], None))
        try:
            outcome = await self._generate(pair, ask)
            if isinstance(outcome, QueryResult):
                return self._generated(pair, outcome, ask)
            if found.video is not None:
                return await self._of_video(pair, found.video, outcome, ask)
            assert features is not None
            try:
                async with asyncio.timeout_at(ask.deadline):
                    known = await features
            except Exception as error:
                return self.empty(pair, ask, why(pair, error))
            return self._told(pair, self._fallen(pair, known, ask), outcome, ask)
        finally:
            if features is not None and not features.done():
                features.cancel()

    async def many(self, misses: Sequence[Miss], ask: Ask) -> list[bytes]:
        """The answers, in their order, as one recommendation. Work on the event loop is done in
        turns with that of others, and by the deadline all of it ends."""
        batch = _Batch(misses, ask)
        if self._busy(ask, len(misses)):
            SHEDS.inc(len(misses))
            batch.reason = "overload"
        else:
            await self._work_in_time(batch)
        return [await self._assembled(miss, batch) for miss in misses]

    async def _work_in_time(self, batch: _Batch) -> None:
        """Work on the batch up to its deadline, or to an error: what is there then is there."""
        size = len(batch.misses)
        self.working += 1
        self.batched += size
        try:
            batch.ask = self._sooner(batch.ask)
            async with asyncio.timeout_at(batch.ask.deadline):
                await self._work(batch)
        except TimeoutError:
            pass
        except Exception as error:
            batch.reason = why(batch.misses[0][0], error)
        finally:
            self.working -= 1
            self.batched -= size

    async def _work(self, batch: _Batch) -> None:
        """Read what is known of the pairs, have queries generated, and make fallbacks ready for
        those that have none by then."""
        loop = asyncio.get_running_loop()
        began, ask = loop.time(), batch.ask
        pairs = list(dict.fromkeys(pair for pair, _ in batch.misses))
        reading = [self._reads.ask(pair, ask.deadline) for pair in pairs]
        for pair, read in zip(
            pairs, await asyncio.gather(*reading, return_exceptions=True), strict=True
        ):
            batch.learn(pair, read)
        reason = self._why_not(ask, len(batch.known))
        if reason is not None:
            batch.reason = reason
            await self._prepare(batch)
            return
        generating = len(batch.known)
        self.generating += generating
        try:
            with self._model.live.use() as recommender:
                now = self._clock()
                groundings = await turns().over(
                    list(batch.known),
                    lambda pair: recommender.ground(pair, batch.known[pair], now, ask.constrain),
                    until=ask.deadline,
                )
                answering = asyncio.ensure_future(
                    recommender.answer(
                        groundings,
                        deadline=ask.deadline,
                        constrain=ask.constrain,
                        answers=batch.outcomes,
                    )
                )
                try:
                    soon = began + FALLBACKS_FROM * (ask.deadline - began) - loop.time()
                    await asyncio.wait((answering,), timeout=max(0.0, soon))
                    if not answering.done():
                        await self._prepare(batch)
                    await answering
                finally:
                    answering.cancel()
        finally:
            self.generating -= generating
        await self._prepare(batch)

    async def _prepare(self, batch: _Batch) -> None:
        """Make fallbacks ready, the last first, for pairs that have no result by now."""

        def prepare(pair: Pair) -> None:
            if batch.lacks(pair):
                batch.ready[pair] = self._fallen(pair, batch.known[pair], batch.ask)

        await turns().over(batch.bare[::-1], prepare, until=batch.ask.deadline)

    async def _assembled(self, miss: Miss, batch: _Batch) -> bytes:
        """The answer for a pair of a batch, of what is there."""
        (pair, found), ask, reason = miss, batch.ask, batch.reason
        outcome = batch.outcomes.get(pair)
        if isinstance(outcome, QueryResult):
            return self._generated(pair, outcome, ask)
        if outcome is not None:
            reason = self._reason(pair, outcome)
        if found.video is not None:
            return await self._of_video(pair, found.video, reason, ask)
        if pair in batch.ready:
            return self._told(pair, batch.ready[pair], reason, ask)
        return self.empty(pair, ask, reason)

    def _sooner(self, ask: Ask) -> Ask:
        """With a deadline that leaves time for what comes after it: the loop goes round a few times
        more, and other things have to be done in each."""
        left = ask.deadline - asyncio.get_running_loop().time()
        rest = min(left / 4 + ROUNDS * self._lag.recent, left / 2)
        return msgspec.structs.replace(ask, deadline=ask.deadline - max(0.0, rest))

    def _busy(self, ask: Ask, pairs: int = 0) -> bool:
        """Whether there is too much to do for queries to be ready in this time: on the event loop,
        where whatever is begun would make others late as well, or, for so many pairs of a batch, in
        the engine."""
        left = ask.deadline - asyncio.get_running_loop().time()
        most = self._max_batched * max(1.0, left / USUAL_S)
        if pairs and self.batched and self.batched + pairs > most:
            return True
        if self.working <= FEW_REQUESTS:
            return False
        wait_s = ROUNDS * self._lag.recent + 2 * PIECE_S * turns().waiting
        return wait_s > left / 4

    def _why_not(self, ask: Ask, count: int) -> Reason | None:
        """Why nothing is generated, if so."""
        if not ask.generate or not self._model.wanted:
            return "not_generating"
        if self._model.recommender is None:
            return "model_unavailable"
        if self.generating + count > self._max_generating or self._busy(ask):
            SHEDS.inc()
            return "overload"
        return None

    async def _generate(self, pair: Pair, ask: Ask) -> QueryResult | Reason:
        """A result by the deadline, or why there is none."""
        reason = self._why_not(ask, 1)
        recommender = self._model.recommender
        if reason is not None or recommender is None:
            return reason or "model_unavailable"
        self.generating += 1
        self.working += 1
        outcome: QueryResult | Exception
        try:
            [outcome] = await recommender.recommend(
                [pair], deadline=ask.deadline, constrain=ask.constrain
            )
        except Exception as error:
            outcome = error
        finally:
            self.generating -= 1
            self.working -= 1
        return outcome if isinstance(outcome, QueryResult) else self._reason(pair, outcome)

    def _reason(self, pair: Pair, outcome: Exception) -> Reason:
        """What an outcome that is no result means for the answer."""
        match outcome:
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

    def _generated(self, pair: Pair, result: QueryResult, ask: Ask) -> bytes:
        _GENERATED.inc()
        return from_result(pair, result, ask, self._clock())

    async def _of_video(self, pair: Pair, body: CachedBody, reason: Reason, ask: Ask) -> bytes:
        """What everyone gets under the video."""
        if self._recheck.due(body, ask):
            checked = await self._recheck.checked((pair[0], None), body, ask)
            if not isinstance(checked, CachedBody):
                return self.empty(pair, ask, checked or reason)
            body = checked
        count("video", reason, ask)
        return from_body("video", reason, pair, body, ask, self._clock())

    def _fallen(self, pair: Pair, known: Features, ask: Ask) -> Fallen:
        """The best that can be shown of what is known of the video."""
        chosen = from_anchors(known)
        if isinstance(chosen, Rejection):
            if chosen in _BARRED:
                return Fallen(verdict=_BARRED[chosen])
            chosen = ()
        settled = settle(chosen, known, leave_out=self._leave_out, personal=True)
        gated = self._gate.apply(
            settled,
            about_of(pair[0], known),
            self._clock(),
            anchors=own_anchors(known.anchors),
            constrain=ask.constrain,
        )
        count_held(gated.held)
        named = request_id(ask)
        queries = wanted(gated.queries, ask, named)[: ask.k or self._k]
        return Fallen(queries, named, None if queries or known.known else "unknown_video")

    def _told(self, pair: Pair, fallen: Fallen, reason: Reason, ask: Ask) -> bytes:
        if fallen.queries:
            count("anchors", reason, ask)
            return anchors(pair, fallen.queries, reason, fallen.named)
        verdict = fallen.verdict
        return self.empty(pair, ask, verdict or reason, rejected=verdict in _BARRED.values())

    def empty(self, pair: Pair, ask: Ask, reason: Reason, *, rejected: bool = False) -> bytes:
        """An answer without queries."""
        count("empty", reason, ask)
        return empty(pair, reason, ask, rejected=rejected)


def count(fallback: Fallback, reason: Reason, ask: Ask) -> None:
    """Count a fallback, unless nobody is to know of it."""
    if not ask.peek:
        note(fallback=fallback, reason=reason)
        ANSWERS.labels("fallback", fallback).inc()
        FALLBACKS.labels(reason).inc()
