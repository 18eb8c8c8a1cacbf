"""One answer: cache, else generate inside the budget, else the best fallback. Never later.

Every wait here ends at the request's deadline, which counts from its arrival; what is at hand
then is the answer, and it says what it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from api.answering.coalesce import Coalescer
from api.answering.explore import Exploration
from api.answering.forms import CACHED, Ask, Hit, fields_of, from_body, values_of, why
from api.answering.misses import ROUNDS, Miss, Misses, count
from api.answering.model import Model
from api.answering.recheck import Recheck
from api.answering.refresh import Refresher
from api.breaker import Breaker
from api.http.lag import Lag
from api.http.metrics import ANSWERS, STALE
from api.http.schemas import Reason
from feature_store.cache.codec import CachedBody, Lookup
from onebar.gating.gate import Gate
from onebar.gating.repertoire import stricter
from onebar.gating.wants import Wants
from onebar.process.tracing import span
from onebar.process.turns import turns
from onebar.records import Pair

MARGIN_S = 0.002
"""Kept back of a budget for putting the answer together, but never more than a tenth of it; where
the event loop is late more, but never more than a quarter."""
LOOKUP_BUDGET_MS = 50.0
"""What a look into the cache may take where neither the request nor the settings grant any time."""
READ_TOGETHER = 64
"""Pairs of a batch that are looked up in one round trip: what comes back is decoded at once."""
CHECKED_TOGETHER = 16
"""Cached bodies of a batch that the gate is asked about before others have their turn."""

Peek = Callable[[Sequence[Pair], float], list[CachedBody | None]]

_CACHE = ANSWERS.labels("cache", "")


class Answerer:
    """Answers pairs with JSON objects, ready to send.

    `at_hand` has what is known without a wait to be in the cache, `last_known` what was in it when
    Redis was lost.
    """

    def __init__(
        self,
        *,
        lookups: Coalescer[Pair, Lookup],
        lookup_many: Callable[[Sequence[Pair]], Awaitable[list[Lookup]]],
        at_hand: Peek,
        last_known: Peek,
        redis: Breaker,
        lag: Lag,
        misses: Misses,
        recheck: Recheck,
        model: Model,
        refresher: Refresher,
        gate: Gate,
        budget_ms: float,
        k: int = 8,
        exploration: Exploration | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lookups = lookups
        self._lookup_many = lookup_many
        self._at_hand = at_hand
        self._last_known = last_known
        self._redis = redis
        self._lag = lag
        self._misses = misses
        self._recheck = recheck
        self._model = model
        self._refresher = refresher
        self._gate = gate
        self._budget_ms = budget_ms
        self._k = k
        self._exploration = exploration
        self._clock = clock

    @property
    def generating(self) -> int:
        """Pairs that queries are being generated for, for answers."""
        return self._misses.generating

    def ask(
        self,
        arrived: float,
        *,
        k: int | None,
        budget_ms: float | None,
        wants: Wants | None = None,
        named: bytes = b"",
    ) -> Ask:
        """The terms of a request that began to be answered at `arrived` (loop time); what it had
        waited by then for the event loop counts. `named` is the name of its one answer.

        A budget of 0 means: generate nothing. The look into the cache then has the usual budget.
        """
        granted = self._budget_ms if budget_ms is None else budget_ms
        deadline = arrived - self._lag.seconds + self._allowance_s(granted)
        ask = Ask(deadline, k, granted > 0, wants=wants, named=named)
        if wants is not None and wants.constrain is not None:
            mode = stricter(self._gate.constrain, wants.constrain)
            if mode != self._gate.constrain:
                ask = msgspec.structs.replace(ask, constrain=mode)
        if self._exploration is None:
            return ask
        return msgspec.structs.replace(ask, k=k or self._k, exploration=self._exploration)

    def peek(self, arrived: float) -> Ask:
        """The terms of a look that generates nothing, leaves no trace, and nothing to chance."""
        terms = self.ask(arrived, k=None, budget_ms=0)
        return msgspec.structs.replace(terms, peek=True, exploration=None)

    def _allowance_s(self, budget_ms: float) -> float:
        budget_s = (budget_ms or self._budget_ms or LOOKUP_BUDGET_MS) / 1000
        margin = max(min(MARGIN_S, budget_s / 10), min(ROUNDS * self._lag.recent, budget_s / 4))
        return budget_s - margin

    async def one(self, pair: Pair, ask: Ask) -> bytes:
        """The answer for one pair: a JSON object."""
        if not self._gate.open:
            return self._misses.empty(pair, ask, "store_unavailable")
        now = self._clock()
        [body] = self._at_hand((pair,), now)
        if body is None:
            if self._redis.open:
                return await self._without_redis(pair, ask, "store_unavailable")
            try:
                with span("cache lookup"):
                    found = await self._lookups.ask(pair, ask.deadline)
            except Exception as error:
                return await self._without_redis(pair, ask, why(pair, error))
            body = _own(pair, found)
            if body is None:
                return await self._misses.one(pair, found, ask)
            now = self._clock()
        if body.passed != self._gate.passed(now) or ask.constrain is not None:
            checked = await self._recheck.checked(pair, body, ask)
            if checked is None:
                return await self._misses.one(pair, Lookup(), ask)
            if not isinstance(checked, CachedBody):
                return self._misses.empty(pair, ask, checked)
            body, now = checked, self._clock()
        if not ask.peek:
            _CACHE.inc()
            self._renew([(pair, body)], now)
        return CACHED % fields_of(pair, body, ask, now)

    async def many(self, pairs: Sequence[Pair], ask: Ask) -> bytes:
        """The answers: a JSON array, in the order of the pairs. They share the deadline, and their
        round trips."""
        if not self._gate.open:
            empty = (self._misses.empty(pair, ask, "store_unavailable") for pair in pairs)
            return b"[%b]" % b",".join(empty)
        now = self._clock()
        bodies = self._at_hand(pairs, now)
        made: dict[int, bytes] = {}
        if not all(bodies):
            made = await self._read(pairs, bodies, ask)
            now = self._clock()
        passed = self._gate.passed(now)
        if ask.constrain is not None or any(
            body is not None and body.passed != passed for body in bodies
        ):
            made |= await self._check_all(pairs, bodies, passed, ask)
            now = self._clock()
        hits = [(pair, body) for pair, body in zip(pairs, bodies, strict=True) if body is not None]
        if not ask.peek:
            _CACHE.inc(len(hits))
            self._renew(hits, now)
        forms = [
            CACHED if body is not None else made[at].replace(b"%", b"%%")
            for at, body in enumerate(bodies)
        ]
        # One formatting for all, as one for each takes half as long again.
        return b"[%b]" % b",".join(forms) % values_of(hits, ask, now)

    async def _read(
        self, pairs: Sequence[Pair], bodies: list[CachedBody | None], ask: Ask
    ) -> dict[int, bytes]:
        """Put into `bodies` what Redis has of those that are None; the answers for the rest."""
        away = [at for at, body in enumerate(bodies) if body is None]
        found = await self._lookup_all([pairs[at] for at in away], ask.deadline)
        if not isinstance(found, list):
            return {at: await self._without_redis(pairs[at], ask, found) for at in away}
        misses: dict[int, Miss] = {}
        for at, lookup in zip(away, found, strict=True):
            bodies[at] = _own(pairs[at], lookup)
            if bodies[at] is None:
                misses[at] = pairs[at], lookup
        if not misses:
            return {}
        if len(misses) == 1:
            [(at, miss)] = misses.items()
            return {at: await self._misses.one(*miss, ask)}
        answers = await self._misses.many(list(misses.values()), ask)
        return dict(zip(misses, answers, strict=True))

    async def _without_redis(self, pair: Pair, ask: Ask, reason: Reason) -> bytes:
        """What was last known to answer the pair, where it may still be shown; else nothing."""
        [body] = self._last_known((pair,), self._clock())
        if body is not None and self._recheck.due(body, ask):
            checked = await self._recheck.checked(pair, body, ask)
            body = checked if isinstance(checked, CachedBody) else None
        if body is None:
            return self._misses.empty(pair, ask, reason)
        count("last_known", reason, ask)
        return from_body("last_known", reason, pair, body, ask, self._clock())

    async def _check_all(
        self, pairs: Sequence[Pair], bodies: list[CachedBody | None], passed: int, ask: Ask
    ) -> dict[int, bytes]:
        """Put into `bodies` what the rules of this moment let pass; the answers for those of which
        that can't be said."""
        at = [
            n
            for n, body in enumerate(bodies)
            if body is not None and (body.passed != passed or ask.constrain is not None)
        ]
        found: list[CachedBody | Reason | None] = []
        for start in range(0, len(at), CHECKED_TOGETHER):
            some = at[start : start + CHECKED_TOGETHER]
            await turns().turn()
            found += await asyncio.gather(
                *(
                    self._recheck.checked(pairs[n], body, ask)
                    for n in some
                    if (body := bodies[n]) is not None
                )
            )
        made: dict[int, bytes] = {}
        missed: list[int] = []
        for number, checked in zip(at, found, strict=True):
            if isinstance(checked, CachedBody):
                bodies[number] = checked
                continue
            bodies[number] = None
            if checked is None:
                missed.append(number)
            else:
                made[number] = self._misses.empty(pairs[number], ask, checked)
        if missed:
            lost = [(pairs[number], Lookup()) for number in missed]
            made |= dict(zip(missed, await self._misses.many(lost, ask), strict=True))
        return made

    def _renew(self, hits: Sequence[Hit], now: float) -> None:
        """Have what is about to be served generated anew, where it is due."""
        retired = self._model.retired
        for pair, body in hits:
            if now >= body.fresh_until or (retired and body.model in retired):
                STALE.inc()
                self._refresher.want(pair)

    async def _lookup_all(self, pairs: Sequence[Pair], deadline: float) -> list[Lookup] | Reason:
        """Many at once are round trips of their own: nothing is gained by waiting for others. Of
        very many some are read at a time, in turns with other long work."""
        found: list[Lookup] = []
        try:
            async with asyncio.timeout_at(deadline):
                with span("cache lookup", pairs=len(pairs)):
                    for start in range(0, len(pairs), READ_TOGETHER):
                        if len(pairs) > READ_TOGETHER:
                            await turns().turn()
                        found += await self._lookup_many(pairs[start : start + READ_TOGETHER])
            return found
        except Exception as error:
            return why(pairs[0], error)


def _own(pair: Pair, found: Lookup) -> CachedBody | None:
    """The body that answers exactly this pair, if there is one."""
    return found.video if pair[1] is None else found.personal
