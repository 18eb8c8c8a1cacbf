"""One bar under one video for one user, as it changes, told as it happens.

A watched pair is read a few times a second; where its evidence, the rules or the model have
changed, its queries are made anew, as an impression would have them made, and told with what they
were before and the evidence that changed. Nobody watches, nothing is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, Protocol

import structlog
from msgspec import Struct

from api.answering.model import Model
from api.watching.changes import Change, changes
from feature_store.redis.client import StoreUnavailableError
from onebar.gating.gate import Gate
from onebar.recommending.recommend import Recommender, UnknownVideoError
from onebar.records import Candidate, Features, Pair, QueryResult

log = structlog.get_logger(__name__)

MOST_WATCHERS = 32
"""Of one process: watching is for people, and costs some reads a second each."""
EVERY_S = 0.1
AWAY_S = 1.0
READ_WITHIN_S = 2.0
GENERATE_WITHIN_S = 2.0


class Told(Struct, frozen=True, omit_defaults=True):
    """A bar at one moment, and how it came to be so.

    `state` is `unknown` (nobody has heard of the video yet), `away` (Redis or the model does not
    answer, `detail` says which) or `told`. `before` are the queries told before this, None at
    first; `because` what was new in the evidence since; `rules` and `model_changed` say what else
    was.
    """

    at: float
    state: Literal["told", "unknown", "away"]
    queries: tuple[Candidate, ...] = ()
    rejected: bool = False
    rejection: str | None = None
    model: str | None = None
    digest: str | None = None
    before: tuple[str, ...] | None = None
    because: tuple[Change, ...] = ()
    rules: bool = False
    model_changed: bool = False
    took_ms: float | None = None
    detail: str = ""


class Reader(Protocol):
    """Reads what is known of pairs."""

    async def features(self, pairs: Sequence[Pair], *, counted: bool = False) -> list[Features]: ...


class Watchers:
    """Who watches, in this process."""

    def __init__(
        self,
        store: Reader,
        model: Model,
        gate: Gate,
        *,
        most: int = MOST_WATCHERS,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._model = model
        self._gate = gate
        self._most = most
        self._every_s = every_s
        self._clock = clock
        self.count = 0
        self.closed = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.count >= self._most

    def close(self) -> None:
        """End all watching: the server is to stop."""
        self.closed.set()

    async def watch(self, pair: Pair) -> AsyncGenerator[Told | None, None]:
        """What is to be told of a pair, until `close`; None after ten seconds without news, so that
        a line that is dead is noticed."""
        with self._counted():
            seen = _Seen()
            quiet = 0.0
            while not self.closed.is_set():
                told = await self._look(pair, seen)
                pause = AWAY_S if told is not None and told.state == "away" else self._every_s
                if told is not None or quiet >= 10.0:
                    quiet = 0.0
                    yield told
                quiet += pause
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self.closed.wait()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    async def _look(self, pair: Pair, seen: _Seen) -> Told | None:
        recommender = self._model.recommender
        if recommender is None:
            why = self._model.status if self._model.wanted else "none, by ONEBAR_API_GENERATE"
            return seen.say(Told(self._clock(), "away", detail=f"model: {why}"))
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                counted = recommender.taste.scorer is not None
                [known] = await self._store.features([pair], counted=counted)
        except (TimeoutError, StoreUnavailableError):
            return seen.say(Told(self._clock(), "away", detail="Redis does not answer"))
        if not known.known:
            return seen.say(Told(self._clock(), "unknown"))
        passed, model = self._gate.passed(self._clock()), recommender.model
        because = () if seen.features is None else changes(seen.features, known)
        rules = seen.passed not in (None, passed)
        model_changed = seen.model not in (None, model)
        if seen.state == "told" and not because and not rules and not model_changed:
            return None
        began = time.perf_counter()
        result = await self._result(recommender, pair, known)
        if not isinstance(result, QueryResult):
            return seen.say(Told(self._clock(), "away", detail=result))
        told = Told(
            at=self._clock(),
            state="told",
            queries=result.queries,
            rejected=result.rejected,
            rejection=result.rejection if isinstance(result.rejection, str) else None,
            model=result.model,
            digest=result.evidence_digest,
            before=seen.texts,
            because=because,
            rules=rules,
            model_changed=model_changed,
            took_ms=round((time.perf_counter() - began) * 1000, 2),
        )
        seen.features, seen.passed, seen.model = known, passed, model
        seen.texts = tuple(query.text for query in result.queries)
        return seen.say(told)

    async def _result(
        self, recommender: Recommender, pair: Pair, known: Features
    ) -> QueryResult | str:
        deadline = asyncio.get_running_loop().time() + GENERATE_WITHIN_S
        try:
            grounding = recommender.ground(pair, known)
            [outcome] = await recommender.answer([grounding], deadline=deadline)
        except StoreUnavailableError:
            return "Redis does not answer"
        if isinstance(outcome, QueryResult):
            return outcome
        if not isinstance(outcome, UnknownVideoError):
            log.debug("watched_not_generated", video_id=pair[0], error=repr(outcome))
        return f"{type(outcome).__name__}: {outcome}"


class _Seen:
    """What a watcher was told last."""

    def __init__(self) -> None:
        self.state: str | None = None
        self.detail = ""
        self.features: Features | None = None
        self.passed: int | None = None
        self.model: str | None = None
        self.texts: tuple[str, ...] | None = None

    def say(self, told: Told) -> Told | None:
        """This, unless nothing of it is new."""
        same = told.state != "told" and (told.state, told.detail) == (self.state, self.detail)
        self.state, self.detail = told.state, told.detail
        return None if same else told
