"""Whether everything that an answer needs is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from api.model import Model
from api.publisher import Publisher
from api.schemas import Readiness
from feature_store.store import FeatureStore

CHECK_TIMEOUT_S = 1.0
KEPT_S = 1.0
"""How long an answer about readiness holds, so that asking often costs nothing."""


class Health:
    """Whether Kafka, Redis and the model are there. A check takes a second at most."""

    def __init__(
        self,
        store: FeatureStore,
        publisher: Publisher,
        model: Model,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._model = model
        self._clock = clock
        self._kept: Readiness | None = None
        self._at = 0.0
        self._lock = asyncio.Lock()

    async def readiness(self) -> Readiness:
        """As of now, or of a second ago."""
        async with self._lock:
            if self._kept is None or self._clock() - self._at >= KEPT_S:
                kafka, redis = await asyncio.gather(self._publisher.check(), self._redis())
                model = self._model.state
                ready = kafka == redis == model == "ok"
                self._kept = Readiness(
                    ready=ready,
                    kafka=kafka,
                    redis=redis,
                    model=model,
                    checkpoint=self._model.live.name,
                    warning=self._model.live.warning,
                )
                self._at = self._clock()
            return self._kept

    async def _redis(self) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._store.ping()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "ok"
