"""What every worker process needs around its loop: servers, health, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from msgspec import Struct

from feature_store.opening import open_store, versions_beside
from feature_store.redis.client import StoreUnfitError
from feature_store.store import FeatureStore
from feature_store.versions import VersionFollower, at_version, keys_of
from onebar.errors import OneBarError
from onebar.process.tasks import end_soon, end_tasks
from onebar.process.tracing import start_tracing, stop_tracing
from onebar.settings import Settings
from stream.kafka.producer import EventProducer
from stream.kafka.topics import ensure_topics
from stream.workers import metrics
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)


class WorkerCrashedError(OneBarError, RuntimeError):
    """A worker ended by itself. The cause is chained; offsets not committed come again."""


class Runtime(Struct):
    """The connected servers of a worker. `settings` are those of the version of the state that
    `store` is bound to. `stop` is set when the worker is to end; `leave` then, too, and when
    another version is live: the worker lets go of what it reads, and calls `moved`."""

    store: FeatureStore
    producer: EventProducer
    health: metrics.WorkerHealth
    stop: asyncio.Event
    settings: Settings
    follower: VersionFollower
    leave: asyncio.Event

    def end(self) -> None:
        """Tell the worker to end."""
        self.stop.set()
        self.leave.set()

    async def move(self) -> None:
        """Go to the version that is live now, however long Redis is away."""
        if not self.stop.is_set():
            self.leave.clear()
        version = await until_back(self.follower.learn, self.health)
        self.settings = at_version(self.settings, version)
        self.store.bind(keys_of(self.settings, version))
        await self.follower.settle(version)

    async def moved(self) -> bool:
        """Called by a worker that has left: whether it is to go on, with the version that is live
        now. False where it is to end."""
        return await unless(self.stop, self.move())


@asynccontextmanager
async def open_runtime(settings: Settings, kind: str) -> AsyncIterator[Runtime]:
    """Serve metrics, wait for Kafka and Redis, make the topics, go to the live version of the
    state and follow it; close everything at the end.

    `stop` is set by SIGTERM and SIGINT. While the servers are awaited it may be set already: the
    worker is to look at it first. `kind` names it in the versions' book-keeping and in traces.
    """
    quiet_libraries()
    loop = asyncio.get_running_loop()
    health = metrics.WorkerHealth()
    async with AsyncExitStack() as stack:
        start_tracing(f"onebar-{kind}")
        stack.callback(stop_tracing)
        server = metrics.serve(settings.metrics_host, settings.metrics_port, health)
        await stack.enter_async_context(server)
        store = open_store(settings)
        stack.push_async_callback(store.close)
        producer = EventProducer(settings)
        stack.push_async_callback(producer.stop)

        follower = VersionFollower(versions_beside(store, settings), settings, kind)
        stack.push_async_callback(follower.end)
        stop, leave = asyncio.Event(), asyncio.Event()
        runtime = Runtime(store, producer, health, stop, settings, follower, leave)

        def told_to_end() -> None:
            end_soon()
            runtime.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told_to_end)

        async def prepare() -> None:
            await ensure_topics(settings)
            await producer.start()
            await fit(store, health)

        async def begin() -> None:
            await until_back(prepare, health)
            await runtime.move()

        await unless(stop, begin())
        following = asyncio.create_task(follower.follow(lambda version: leave.set()))
        stack.push_async_callback(end_tasks, following)
        yield runtime


async def fit(store: FeatureStore, health: metrics.WorkerHealth) -> None:
    """Say what is to be said of this Redis. Raises `StoreUnavailableError`, so that it is waited
    for, unless it takes what is written and can hold the state."""
    found = await store.fitness()
    health.warn("redis", "; ".join(found.warnings) or None)
    if found.problems:
        raise StoreUnfitError(f"Redis is unfit: {'; '.join(found.problems)}")
    for warning in found.warnings:
        log.warning("redis_warning", warning=warning)
    log.info("redis_fit", version=found.version, notes=found.notes)
    await store.probe()


REPEAT_AFTER_S = 30.0


class _Seldom(logging.Filter):
    """Lets a message of one form through once in `REPEAT_AFTER_S`: while Kafka is away its client
    says so dozens of times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        form = record.name, str(record.msg)[:60]
        if record.created - self._last.get(form, -math.inf) < REPEAT_AFTER_S:
            return False
        self._last[form] = record.created
        return True


def quiet_libraries() -> None:
    """Kafka's clients say what is wrong, and each thing seldom."""
    for name in (
        "aiokafka",
        "faust",
        "mode",
        "stream.workers.faust_app",
    ):  # the last one is Faust by our name
        logging.getLogger(name).setLevel(logging.WARNING)
    seldom = _Seldom()
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("aiokafka", "faust", "mode"):
            logging.getLogger(name).addFilter(seldom)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended before `stop` was set; it is cancelled otherwise."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        await task
        return True
    await end_tasks(task)
    return False
