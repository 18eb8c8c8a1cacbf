"""The model that answers, and its successor: loaded beside it, warmed, switched to, dropped.

The API and the generator worker serve through a `LiveModel`. Where the settings name a registry it
follows the registry's pointer; nobody waits for a load, nothing begun on a model is cut off, and a
checkpoint that can't serve changes nothing but what is told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import Counter, Gauge

from onebar.gating.gate import Gate
from onebar.generator.batching import Batcher
from onebar.generator.registry import NothingPromotedError, Pointer, Registry
from onebar.recommending.loading import LoadedModel, check_answer, load_model, warm_prompt
from onebar.recommending.recommend import FeatureReader, Recommender, ResultCache
from onebar.settings import Settings

log = structlog.get_logger(__name__)

SWAPS = Counter(
    "onebar_model_swaps", "Tries to go on to another checkpoint, by outcome.", ["outcome"]
)
MODEL_INFO = Gauge(
    "onebar_model_info",
    "Processes that answer with this checkpoint; 0 for those that did.",
    ["model"],
    multiprocess_mode="livesum",
)
REFUSED_RETRY_S = 30.0
"""How soon a refused checkpoint is tried again while the pointer stays; twice as long each time."""
LONGEST_RETRY_S = 600.0


class _Served:
    """A warm model with all that stands on it."""

    def __init__(self, model: LoadedModel, batcher: Batcher, recommender: Recommender) -> None:
        self.model = model
        self.batcher = batcher
        self.recommender = recommender
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def use(self) -> Iterator[Recommender]:
        self._users += 1
        self._unused.clear()
        try:
            yield self.recommender
        finally:
            self._users -= 1
            if self._users == 0:
                self._unused.set()

    async def close(self) -> None:
        """Finish what was begun, then free the model."""
        await self._unused.wait()
        await self.recommender.drain()
        await self.batcher.stop()
        await asyncio.to_thread(self.model.engine.close)


class LiveModel:
    """Serves one model at a time; one instance on one event loop.

    `warning` says why the registry's current checkpoint is not the one that answers; `on_warning`
    is told of each change of it. `retired` are the models that another replaced here: what they
    answered is due for renewal, while models of other servers are none of ours to judge. `load`
    loads what the settings name, in a thread. `queue_size` stands in for the setting.
    """

    def __init__(
        self,
        settings: Settings,
        store: FeatureReader,
        cache: ResultCache,
        *,
        gate: Gate | None = None,
        load: Callable[[Settings], LoadedModel] = load_model,
        queue_size: int | None = None,
        retry_s: float = REFUSED_RETRY_S,
        on_warning: Callable[[str | None], None] = lambda warning: None,
    ) -> None:
        for outcome in ("swapped", "refused"):
            SWAPS.labels(outcome)  # seen at 0 first, the first one counts as an increase
        self.warning: str | None = None
        self._settings = settings
        self._store = store
        self._cache = cache
        self._gate = Gate() if gate is None else gate
        self._load = load
        self._queue_size = queue_size or settings.queue_size
        self._retry_s = retry_s
        self._on_warning = on_warning
        self._registry = None if settings.registry is None else Registry(settings.registry)
        self._served: _Served | None = None
        self._dropping: asyncio.Task[None] | None = None
        self.retired: frozenset[str] = frozenset()
        self._refused: Pointer | None = None
        self._wait_s = retry_s
        self._again_at = 0.0

    @property
    def recommender(self) -> Recommender | None:
        """What answers now; None before `open` and after `close`.

        Call it before the next `await`; whoever needs it for longer takes it by `use`.
        """
        return None if self._served is None else self._served.recommender

    @property
    def name(self) -> str | None:
        """The name of the checkpoint that answers."""
        return None if self._served is None else self._served.model.name

    @contextmanager
    def use(self) -> Iterator[Recommender]:
        """The recommender of this moment, which stays usable inside the block, swap or not."""
        if self._served is None:
            raise RuntimeError("no model is open")
        with self._served.use() as recommender:
            yield recommender

    async def open(self, model: LoadedModel | None = None) -> None:
        """Load the first model (or take over `model`) and warm it.

        Raises what says why there is none: `CheckpointError`, `RegistryError`, `EngineError` and
        whatever `load` raises.
        """
        if model is None:
            model = await asyncio.to_thread(self._load, self._settings)
        fresh = await self._warm(model)
        try:
            known = await asyncio.to_thread(self._known)
        except BaseException:
            await fresh.close()
            raise
        self._switch(fresh, known)
        log.info("model_ready", model=self.name)

    async def follow(self) -> None:
        """Follow the registry's pointer until cancelled; returns at once without a registry."""
        while self._registry is not None:
            await asyncio.sleep(self._settings.registry_poll_s)
            try:
                await self.look()
            except Exception:
                log.exception("look_failed", serving=self.name)

    async def look(self) -> None:
        """Look at the pointer once, and go where it points if that can serve.

        Returns once the predecessor is gone, so no more than two models are ever loaded.
        """
        try:
            pointer = await asyncio.to_thread(self._pointer)
        except Exception as error:
            self._refuse(None, error)
            return
        if pointer.name == self.name:
            self._refused = None
            self._warn(None)
            return
        now = asyncio.get_running_loop().time()
        if pointer == self._refused and now < self._again_at:
            return
        try:
            fresh = await self._warm(await asyncio.to_thread(self._load, self._settings))
        except Exception as error:
            self._refuse(pointer, error)
            return
        try:
            wanted = await asyncio.to_thread(self._pointer)
            known = await asyncio.to_thread(self._known)
            if wanted.name != fresh.model.name:  # moved on while this one was loaded
                await fresh.close()
                return
        except BaseException:
            await fresh.close()
            raise
        log.info("model_swapped", model=fresh.model.name, previous=self.name)
        SWAPS.labels("swapped").inc()
        self._refused = None
        self._warn(None)
        self._switch(fresh, known)
        if self._dropping is not None:
            await asyncio.shield(self._dropping)

    async def close(self) -> None:
        """Finish what was begun, and free what is loaded. End `follow` first."""
        served, self._served = self._served, None
        if self._dropping is not None:
            await asyncio.gather(self._dropping, return_exceptions=True)
        if served is not None:
            MODEL_INFO.labels(served.model.name).set(0)
            await served.close()

    def _pointer(self) -> Pointer:
        assert self._registry is not None
        pointer = self._registry.pointer()
        if pointer is None:
            raise NothingPromotedError(f"nothing is promoted in {self._registry.path} any more")
        return pointer

    async def _warm(self, model: LoadedModel) -> _Served:
        """The model behind a running batcher, after a first answer."""
        settings = self._settings
        batcher = Batcher(
            model.engine,
            k=max(settings.k, model.taste.beam if model.taste else 0),
            max_batch=settings.batch_size,
            max_wait_s=settings.batch_wait_s,
            queue_size=self._queue_size,
            workers=settings.engine_workers,
        )
        recommender = Recommender(
            self._store,
            self._cache,
            batcher,
            prompt_config=model.prompt_config,
            relevance=model.relevance,
            taste=model.taste,
            gate=self._gate,
            k=settings.kept,
            leave_out=settings.leave_out,
        )
        fresh = _Served(model, batcher, recommender)
        try:
            await batcher.start()
            check_answer(model.name, await batcher.submit(warm_prompt(model.prompt_config)))
        except BaseException:
            await fresh.close()
            raise
        return fresh

    def _switch(self, fresh: _Served, known: frozenset[str]) -> None:
        """Have `fresh` answer from now on; its predecessor is dropped behind it."""
        leaving, self._served = self._served, fresh
        MODEL_INFO.labels(fresh.model.name).set(1)
        self.retired |= known
        if leaving is not None:
            self.retired |= {leaving.model.name}
            MODEL_INFO.labels(leaving.model.name).set(0)
            self._dropping = asyncio.create_task(leaving.close())
        self.retired -= {fresh.model.name}

    def _known(self) -> frozenset[str]:
        """All that ever were current in the registry."""
        if self._registry is None:
            return frozenset()
        try:
            return frozenset(change.name for change in self._registry.history())
        except OSError:
            return frozenset()

    def _refuse(self, pointer: Pointer | None, error: Exception) -> None:
        """Stay with what answers, and say why. None: the pointer can't be read, told once."""
        reason = f"{type(error).__name__}: {error}"
        wanted = "what the registry names" if pointer is None else pointer.name
        warning = f"{wanted} is refused, {self.name} keeps serving: {reason}"
        if pointer is not None:
            again = pointer == self._refused
            self._wait_s = min(2 * self._wait_s, LONGEST_RETRY_S) if again else self._retry_s
            self._refused = pointer
            self._again_at = asyncio.get_running_loop().time() + self._wait_s
        if pointer is not None or warning != self.warning:
            SWAPS.labels("refused").inc()
            log.error("model_refused", model=wanted, reason=reason, serving=self.name)
        self._warn(warning)

    def _warn(self, warning: str | None) -> None:
        if warning != self.warning:
            self.warning = warning
            self._on_warning(warning)
