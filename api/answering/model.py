"""The model the API answers misses with: loaded behind its back, ready once it is warm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from onebar.gating.gate import Gate
from onebar.process.tasks import end_tasks
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import LoadedModel, load_model
from onebar.recommending.recommend import FeatureReader, Recommender, ResultCache
from onebar.settings import Settings

log = structlog.get_logger(__name__)

RETRY_S = 5.0


class Model:
    """Holds the recommender, once there is one, and follows the registry where there is one.

    `recommender` is None while the first model loads, where it can't be loaded (tried again every
    few seconds; `status` says why), and where the settings want none.
    """

    def __init__(
        self,
        settings: Settings,
        store: FeatureReader,
        cache: ResultCache,
        *,
        gate: Gate | None = None,
        load: Callable[[Settings], LoadedModel] = load_model,
        retry_s: float = RETRY_S,
    ) -> None:
        self.wanted = settings.api_generate
        self.live = LiveModel(settings, store, cache, gate=gate, load=load)
        self.status = "loading" if self.wanted else "ok"
        self._retry_s = retry_s
        self._task: asyncio.Task[None] | None = None

    @property
    def recommender(self) -> Recommender | None:
        """What answers now: call it before the next `await`."""
        return self.live.recommender

    @property
    def retired(self) -> frozenset[str]:
        """Models that this server has left behind: what they answered is due for renewal."""
        return self.live.retired

    def start(self) -> None:
        """Begin to load; returns at once."""
        if self.wanted:
            self._task = asyncio.create_task(self._load())

    async def _load(self) -> None:
        while self.recommender is None:
            try:
                await self.live.open()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if reason != self.status:
                    log.error("model_not_loaded", error=reason, retry_s=self._retry_s)
                self.status = reason
                await asyncio.sleep(self._retry_s)
        self.status = "ok"
        await self.live.follow()

    async def stop(self) -> None:
        """Finish what the engine has begun, and free it."""
        if self._task is not None:
            await end_tasks(self._task)
        await self.live.close()
