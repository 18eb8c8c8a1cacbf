"""The model the API answers misses with: loaded behind its back, ready once it is warm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from onebar.batching import Batcher
from onebar.engines import Engine
from onebar.recommend import FeatureReader, Recommender, ResultCache
from onebar.serving import LoadedModel, load_model
from onebar.settings import Settings

log = structlog.get_logger(__name__)

WARM_PROMPT = "warm up [SEP]  [SEP]  [SEP] "
RETRY_S = 5.0


class Model:
    """Holds the recommender, once there is one.

    `recommender` is None while the model loads, where it can't be loaded (tried again every few
    seconds; `state` says why), and where the settings want none.
    """

    def __init__(
        self,
        settings: Settings,
        store: FeatureReader,
        cache: ResultCache,
        *,
        load: Callable[[Settings], LoadedModel] = load_model,
        retry_s: float = RETRY_S,
    ) -> None:
        self.wanted = settings.api_generate
        self.recommender: Recommender | None = None
        self.state = "loading" if self.wanted else "ok"
        self._settings = settings
        self._store = store
        self._cache = cache
        self._loader = load
        self._retry_s = retry_s
        self._batcher: Batcher | None = None
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load; returns at once."""
        if self.wanted:
            self._task = asyncio.create_task(self._load())

    async def _load(self) -> None:
        while True:
            try:
                await self._load_once()
                return
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if reason != self.state:
                    log.error("model_not_loaded", error=reason, retry_s=self._retry_s)
                self.state = reason
            await self._discard()
            await asyncio.sleep(self._retry_s)

    async def _load_once(self) -> None:
        settings = self._settings
        model = await asyncio.to_thread(self._loader, settings)
        self._engine = model.engine
        self._batcher = Batcher(
            model.engine,
            k=settings.k,
            max_batch=settings.batch_size,
            max_wait_s=settings.batch_wait_s,
            queue_size=settings.queue_size,
            workers=settings.engine_workers,
        )
        await self._batcher.start()
        await self._batcher.submit(WARM_PROMPT, deadline=None)
        self.recommender = Recommender(
            self._store,
            self._cache,
            self._batcher,
            prompt_config=model.prompt_config,
            k=settings.k,
        )
        self.state = "ok"
        log.info("model_ready", model=model.engine.model)

    async def stop(self) -> None:
        """Finish what the engine has begun, and free it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._discard()

    async def _discard(self) -> None:
        recommender, self.recommender = self.recommender, None
        batcher, self._batcher = self._batcher, None
        engine, self._engine = self._engine, None
        if batcher is not None:
            await batcher.stop()
        if recommender is not None:
            await recommender.drain()
        if engine is not None:
            await asyncio.to_thread(engine.close)
