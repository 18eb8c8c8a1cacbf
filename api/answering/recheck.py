"""Cached bodies, as the rules of this moment let them pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from api.answering.coalesce import Coalescer
from api.answering.forms import Ask, encode, why
from api.answering.refresh import Refresher
from api.http.schemas import Reason
from feature_store.buckets import CorruptStateError
from feature_store.cache.codec import CachedBody
from onebar.gating.gate import NOTHING, PINNED_SCORE, Gate, about_of, own_anchors
from onebar.gating.held import count_held
from onebar.gating.rules import About
from onebar.recommending.candidates import Rejection
from onebar.records import Features, Pair


class Recheck:
    """Asks the gate anew about what passed it under other rules."""

    def __init__(
        self,
        *,
        gate: Gate,
        features: Coalescer[Pair, Features],
        refresher: Refresher,
        k: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gate = gate
        self._features = features
        self._refresher = refresher
        self._k = k
        self._clock = clock

    def due(self, body: CachedBody, ask: Ask) -> bool:
        """Whether a body passed other rules than those of this moment, or less strict ones than the
        request's."""
        return body.passed != self._gate.passed(self._clock()) or ask.constrain is not None

    async def checked(self, pair: Pair, body: CachedBody, ask: Ask) -> CachedBody | Reason | None:
        """The body as the rules of this moment let it pass, with what they pin, or why that can't
        be said. It is also due to be made anew, for what they hold back no more. None where the
        request is stricter than the rules and nothing is left: there may be other queries."""
        if body.passed != self._gate.passed(self._clock()):
            self._refresher.want(pair)
        about, anchors = About(pair[0]), NOTHING
        if self._gate.asks_about or ask.constrain is not None:
            try:
                async with asyncio.timeout_at(ask.deadline):
                    known = await self._features.ask((pair[0], None))
            except Exception as error:
                return why(pair, error)
            about, anchors = about_of(pair[0], known), own_anchors(known.anchors)
        try:
            result = body.result()
        except CorruptStateError as error:
            return why(pair, error)
        gated = self._gate.apply(
            [query for query in result.queries if query.score != PINNED_SCORE],
            about,
            self._clock(),
            pins=not result.rejected,
            anchors=anchors,
            constrain=ask.constrain,
        )
        count_held(gated.held)
        if not gated.queries and result.queries and ask.constrain is not None:
            return None
        queries = gated.queries[: self._k]
        shown = msgspec.structs.replace(result, queries=queries, rejected=not queries)
        if shown.rejected and not result.rejected:
            shown = msgspec.structs.replace(shown, rejection=str(Rejection.HELD_BACK))
        return msgspec.structs.replace(body, body=encode(shown)[:-1])
