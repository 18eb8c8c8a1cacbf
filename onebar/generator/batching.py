"""Many waiters, one engine: batches for a few milliseconds, each distinct prompt once.

All state lives on one event loop; the engine runs in its own threads, so the loop never waits
for it. Nothing here knows Kafka, Redis or HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

import structlog
from prometheus_client import Counter, Gauge, Histogram

from onebar.errors import OneBarError
from onebar.generator.engine import Engine, EngineError
from onebar.generator.within import Within
from onebar.records import Candidate

log = structlog.get_logger(__name__)

BATCH_SIZE = Histogram(
    "onebar_engine_batch_size", "Prompts in one engine call.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
ENGINE_SECONDS = Histogram(
    "onebar_engine_seconds",
    "Time of one engine call.",
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4, 0.8, 1.6, 5.0),
)
WAITING = Gauge("onebar_engine_waiting", "Prompts waiting for the engine.")
OUTCOMES = Counter("onebar_engine_prompts", "Prompts by what became of them.", ["outcome"])


class QueueFullError(OneBarError, RuntimeError):
    """More prompts wait than the queue holds: fall back now rather than wait."""


class DeadlineExceededError(OneBarError, TimeoutError):
    """The candidates were not ready in time."""


class BatcherStoppedError(EngineError):
    """The batcher was not started, or is stopped."""


class _Job:
    __slots__ = (
        "company",
        "created",
        "deadline",
        "future",
        "pinned",
        "prompt",
        "waiters",
        "within",
    )

    def __init__(
        self,
        prompt: str,
        within: Within | None,
        company: Hashable,
        created: float,
        deadline: float | None,
    ) -> None:
        self.prompt = prompt
        self.within = within
        self.company = company
        self.created = created
        self.deadline = deadline
        self.future: asyncio.Future[list[Candidate]] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)
        self.waiters = 0
        self.pinned = False


_Named = tuple[str, Within | None]


def _retrieve(future: asyncio.Future[list[Candidate]]) -> None:
    """Mark an error as seen: nobody may be left to see it, and that is no news."""
    if not future.cancelled():
        future.exception()


class Batcher:
    """Runs prompts through an engine in batches.

    Prompts wait up to `max_wait_s` for company, at most `max_batch` go together, and a prompt
    already waiting or running is joined, not run again. Every call asks for the same `k`.
    `workers` batches run side by side.

    Where the engine gains from the company of certain prompts only (`Engine.batch_limit`), the
    oldest prompt then goes as soon as it can, with those of its company that wait already, and
    nobody waits for company. Where nobody does, one batch more than there are workers is begun, so
    that the engine need not wait for an event loop with requests to answer.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        k: int = 8,
        max_batch: int = 16,
        max_wait_s: float = 0.004,
        queue_size: int = 256,
        workers: int = 1,
    ) -> None:
        self.engine = engine
        self.k = k
        limit = engine.batch_limit
        self._picks = limit is not None
        self._max_batch = max_batch if limit is None else min(max_batch, limit)
        self._max_wait_s = 0.0 if self._picks else max_wait_s
        self._queue_size = queue_size
        self._workers = workers
        self._waiting: dict[_Named, _Job] = {}
        self._running: dict[_Named, _Job] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: ThreadPoolExecutor | None = None
        self._arrived = asyncio.Event()
        self._open = False

    @property
    def model(self) -> str:
        """The name of the checkpoint that answers."""
        return self.engine.model

    @property
    def waiting(self) -> int:
        """Prompts that wait for the engine."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Prompts that are inside the engine."""
        return len(self._running)

    async def start(self) -> None:
        """Begin to take prompts. Call once, on the loop that will submit."""
        if self._tasks:
            return
        begun = self._workers + (1 if self._picks or self._max_batch == 1 else 0)
        self._threads = ThreadPoolExecutor(begun, thread_name_prefix="engine")
        self._open = True
        self._tasks = [asyncio.create_task(self._work()) for _ in range(begun)]

    async def stop(self) -> None:
        """Take no more, finish what waits, end the threads. The engine stays open."""
        if not self._open:
            return
        self._open = False
        self._arrived.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []
        assert self._threads is not None
        self._threads.shutdown()
        self._threads = None

    def begin(
        self, prompt: str, *, within: Within | None = None, deadline: float | None = None
    ) -> asyncio.Future[list[Candidate]]:
        """Queue a prompt (and what its queries are held `within`), or join the one that waits or
        runs already; does not wait.

        The future is shared: wait for it with `asyncio.wait` or `asyncio.shield`, never cancel
        it. It fails with `DeadlineExceededError` if the prompt could not be *begun* by `deadline`
        (loop time; None is never), or with `EngineError`. A computation that has begun runs to
        its end. Raises `QueueFullError` and `BatcherStoppedError` at once.
        """
        job = self._join((prompt, within), deadline)
        job.pinned = True
        return job.future

    async def submit(self, prompt: str, *, deadline: float | None = None) -> list[Candidate]:
        """The candidates of a prompt, best first.

        Raises `DeadlineExceededError` at `deadline` (loop time; None is never), `QueueFullError`
        at once, `EngineError` where the engine failed. Cancelling one waiter leaves the others
        alone; a prompt nobody waits for any more is not computed.
        """
        loop = asyncio.get_running_loop()
        if deadline is not None and loop.time() >= deadline:
            raise DeadlineExceededError("the deadline had passed before the prompt was queued")
        job = self._join((prompt, None), deadline)
        job.waiters += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(job.future)
        except DeadlineExceededError:
            raise
        except TimeoutError:
            raise DeadlineExceededError("the candidates were not ready by the deadline") from None
        finally:
            job.waiters -= 1
            if job.waiters == 0 and not job.pinned:
                self._forget(job)

    def _join(self, name: _Named, deadline: float | None) -> _Job:
        if not self._open:
            raise BatcherStoppedError("the batcher takes no prompts: start() it first")
        job = self._waiting.get(name) or self._running.get(name)
        if job is None:
            if len(self._waiting) >= self._queue_size:
                OUTCOMES.labels("queue_full").inc()
                raise QueueFullError(
                    f"{len(self._waiting)} prompts wait for the engine, as many as the queue holds"
                )
            now = asyncio.get_running_loop().time()
            job = _Job(*name, self.engine.company(name[0]), now, deadline)
            self._waiting[name] = job
            WAITING.set(len(self._waiting))
            self._arrived.set()
        elif job.deadline is not None:
            job.deadline = None if deadline is None else max(job.deadline, deadline)
        return job

    def _forget(self, job: _Job) -> None:
        name = job.prompt, job.within
        if self._waiting.get(name) is job:
            del self._waiting[name]
            WAITING.set(len(self._waiting))
            OUTCOMES.labels("abandoned").inc()

    async def _fill(self) -> None:
        """Return once a batch is due: full, or its oldest prompt has waited long enough."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._open or len(self._waiting) >= self._max_batch:
                return
            self._arrived.clear()
            due: float | None = None
            if self._waiting:
                due = next(iter(self._waiting.values())).created + self._max_wait_s
                if loop.time() >= due:
                    return
            try:
                async with asyncio.timeout_at(due):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Job]:
        """The oldest that can still be in time, and the next oldest of its company."""
        now = asyncio.get_running_loop().time()
        batch: list[_Job] = []
        for name, job in list(self._waiting.items()):
            if len(batch) == self._max_batch:
                break
            if batch and job.company != batch[0].company:
                continue
            del self._waiting[name]
            if job.deadline is not None and now >= job.deadline:
                OUTCOMES.labels("late").inc()
                job.future.set_exception(
                    DeadlineExceededError("the deadline passed while the prompt waited")
                )
                continue
            self._running[name] = job
            batch.append(job)
        WAITING.set(len(self._waiting))
        return batch

    async def _work(self) -> None:
        while True:
            await self._fill()
            batch = self._take()
            if batch:
                await self._run(batch)
            elif not self._open and not self._waiting:
                self._arrived.set()
                return

    async def _run(self, batch: list[_Job]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        prompts = [job.prompt for job in batch]
        within = [job.within for job in batch]
        held = () if not any(within) else (within,)
        try:
            results = await loop.run_in_executor(
                self._threads, self.engine.generate, prompts, self.k, *held
            )
            if len(results) != len(batch):
                raise EngineError(f"{len(batch)} prompts gave {len(results)} results")
        except Exception as error:
            log.exception("engine_failed", prompts=len(batch), model=self.engine.model)
            OUTCOMES.labels("failed").inc(len(batch))
            for job in batch:
                failure = EngineError(f"the engine failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                job.future.set_exception(failure)
        else:
            OUTCOMES.labels("generated").inc(len(batch))
            for job, candidates in zip(batch, results, strict=True):
                job.future.set_result(candidates)
        finally:
            for job in batch:
                self._running.pop((job.prompt, job.within), None)
            BATCH_SIZE.observe(len(batch))
            ENGINE_SECONDS.observe(loop.time() - started)
