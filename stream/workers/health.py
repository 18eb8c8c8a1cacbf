"""Beside a worker's loop: are its servers there, how far behind is it, does it get on?

Neither Faust nor aiokafka says that Kafka is away; they just bring nothing more. So each server
is asked from time to time, whether there is work or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog

from feature_store.redis.client import StoreUnavailableError
from feature_store.store import FeatureStore
from onebar.process.tasks import end_tasks
from stream.kafka.topics import KafkaUnavailableError
from stream.workers.metrics import EVICTED, LAG, WorkerHealth
from stream.workers.runtime import Runtime

log = structlog.get_logger(__name__)

Lags = Mapping[tuple[str, int], int]
"""(topic, partition) -> records that have not had their effect yet."""

EVERY_S = 2.0
ANSWER_WITHIN_S = 5.0


async def watch(
    runtime: Runtime, lags: Callable[[], Awaitable[Lags]], every_s: float = EVERY_S
) -> None:
    """Look every `every_s` seconds, for ever. Raises what `lags` raises, but waits for servers."""
    shown: set[tuple[str, int]] = set()
    evictions = Evictions(runtime.store, runtime.health)
    while True:
        await _ask("redis", partial(_whole, runtime), runtime.health)
        await _ask("redis", evictions.look, runtime.health, source="evictions")
        await _ask("kafka", runtime.producer.ping, runtime.health)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await lags()
        except (StoreUnavailableError, KafkaUnavailableError, TimeoutError) as error:
            log.warning("lag_unknown", error=str(error) or "no answer")
        else:
            for pair in shown - found.keys():
                LAG.remove(pair[0], str(pair[1]))
            for (topic, partition), behind in found.items():
                LAG.labels(topic, str(partition)).set(behind)
            shown = set(found)
            if not any(found.values()):
                runtime.health.beat()
        await asyncio.sleep(every_s)


@asynccontextmanager
async def watching(
    runtime: Runtime, lags: Callable[[], Awaitable[Lags]]
) -> AsyncIterator[asyncio.Task[None]]:
    """`watch` as long as the block runs. The task is yielded for whoever wants to know its end;
    what it raised is raised at the end of the block, unless the block itself failed."""
    task = asyncio.create_task(watch(runtime, lags))
    try:
        yield task
    finally:
        await end_tasks(task)
    if not task.cancelled():
        task.result()


async def _whole(runtime: Runtime) -> None:
    """Ask for a write, and whether anybody has found that the state is not whole."""
    lost = await runtime.store.probe()
    if lost is None:
        runtime.health.back("state")
    else:
        runtime.health.away("state", lost)


class Evictions:
    """Watches whether Redis evicts keys. What it took cannot be told, so once it has, the worker
    is unwell to its end."""

    def __init__(self, store: FeatureStore, health: WorkerHealth) -> None:
        self._store = store
        self._health = health
        self._before: int | None = None

    async def look(self) -> None:
        """Look once. Raises `StoreUnavailableError`."""
        evicted = await self._store.evicted_keys()
        if evicted is None:
            return
        EVICTED.set(evicted)
        if self._before is not None and evicted > self._before:
            self._health.away(
                "evictions",
                f"Redis evicted {evicted - self._before:,} keys: the state may have gaps. Set "
                "maxmemory-policy to noeviction, and build the state anew with another "
                "ONEBAR_STATE_VERSION",
            )
            log.error("redis_evicts", keys=evicted - self._before)
        self._before = evicted


async def _ask(
    name: str, ping: Callable[[], Awaitable[None]], health: WorkerHealth, source: str = "watch"
) -> None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await ping()
    except (StoreUnavailableError, KafkaUnavailableError, TimeoutError) as error:
        said = str(error) or f"no answer within {ANSWER_WITHIN_S:g} s"
        health.away(name, said, source=source)
    else:
        health.back(name, source=source)
