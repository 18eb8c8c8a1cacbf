"""Whether everything that an answer needs is there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

from api.answering.model import Model
from api.http.schemas import Readiness
from api.peers import TELL_EVERY_S, Peers
from api.publisher import Publisher
from feature_store.store import FeatureStore
from onebar.process import vitals

CHECK_TIMEOUT_S = 1.0
KEPT_S = 1.0
"""How long it holds that the servers are there, so that asking often costs nothing."""
WATCH_EVERY_S = 5.0
KEPT_AWAY_S = 0.1
"""How long it holds that one is not."""


class ReadinessProbe:
    """Whether Kafka, Redis and the model are there, for every process of the server where there are
    several (`peers`). A check takes a second at most."""

    def __init__(
        self,
        store: FeatureStore,
        publisher: Publisher,
        model: Model,
        *,
        peers: Peers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._model = model
        self._peers = peers
        self._clock = clock
        self._servers: tuple[str, str] = ("unknown", "unknown")
        self._at = -math.inf
        self._lost: str | None = None
        self._lock = asyncio.Lock()

    async def readiness(self) -> Readiness:
        """Of all processes: of this one as of now, of the others as of a second ago."""
        own = await self.own()
        return own if self._peers is None else self._peers.together(own)

    async def own(self) -> Readiness:
        """Of this process, as of now; of the servers, as of a moment ago."""
        async with self._lock:
            fine = all(state == "ok" for state in self._servers)
            if self._clock() - self._at >= (KEPT_S if fine else KEPT_AWAY_S):
                self._servers = await asyncio.gather(self._publisher.check(), self._redis())
                self._at = self._clock()
        kafka, redis = self._servers
        model, live = self._model.status, self._model.live
        return Readiness(
            ready=kafka == redis == model == "ok",
            kafka=kafka,
            redis=redis,
            model=model,
            checkpoint=live.name,
            warning=live.warning,
        )

    async def watch(self) -> None:
        """Show it as metrics, and tell the other processes, for ever."""
        try:
            await self._watch(WATCH_EVERY_S if self._peers is None else TELL_EVERY_S)
        finally:
            if self._peers is not None:
                self._peers.forget()

    async def _watch(self, every_s: float) -> None:
        while True:
            found = await self.own()
            if self._peers is not None:
                with suppress(OSError):  # a full disk is no reason to end; the others see silence
                    self._peers.tell(found)
            states = {"kafka": found.kafka, "redis": found.redis, "model": found.model}
            problems = {name for name, state in states.items() if state != "ok"}
            if self._lost is not None:
                problems = problems - {"redis"} | {"state"}
            warnings = {"model"} if found.warning else set()
            vitals.show(problems, (*states, "state"), warnings)
            await asyncio.sleep(every_s)

    async def _redis(self) -> str:
        """ "ok" where it takes what is written and nobody has found the state to lack something."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                lost = await self._store.probe()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        self._lost = lost
        return "ok" if lost is None else lost
