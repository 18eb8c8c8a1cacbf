"""Beside a worker's loop: are its servers there, how far behind is it, does it get on?

Neither Faust nor aiokafka says that Kafka is away; they just bring nothing more. So each server
is asked from time to time, whether there is work or not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog

from feature_store.redis.client import StoreUnavailableError
from feature_store.store import FeatureStore
from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from stream.events import IMPRESSIONS
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.lag import group_lags
from stream.kafka.producer import EventProducer
from stream.kafka.topics import KafkaUnavailableError
from stream.workers.continuity import INPUTS
from stream.workers.metrics import (
    CLOCK_SKEW,
    EVICTED,
    GROUP_LAG,
    LAG,
    REDIS_MEMORY,
    REDIS_MEMORY_LIMIT,
    REDIS_SAVES,
    WorkerHealth,
)
from stream.workers.runtime import Runtime

log = structlog.get_logger(__name__)

Lags = Mapping[tuple[str, int], int]
"""(topic, partition) -> records that have not had their effect yet."""

EVERY_S = 2.0
ANSWER_WITHIN_S = 5.0
GROUPS_EVERY_S = 15.0
"""How often it is asked how far behind the consumer groups are: that takes a few connections."""
MOST_SKEW_S = 5.0
"""How far the clocks may be apart before someone is told."""


async def watch(
    runtime: Runtime, lags: Callable[[], Awaitable[Lags]], every_s: float = EVERY_S
) -> None:
    """Look every `every_s` seconds, for ever. Raises what `lags` raises, but waits for servers."""
    redis = RedisWatch(runtime.store, runtime.health)
    kafka = KafkaWatch(runtime.producer, runtime.health, lags)
    while True:
        await _ask("redis", partial(_whole, runtime), runtime.health)
        await _ask("redis", redis.look, runtime.health, source="vitals")
        await kafka.look()
        await asyncio.sleep(every_s)


@asynccontextmanager
async def watching(
    runtime: Runtime, lags: Callable[[], Awaitable[Lags]]
) -> AsyncIterator[asyncio.Task[None]]:
    """`watch` as long as the block runs. The task is yielded for whoever wants to know its end;
    what it raised is raised at the end of the block, unless the block itself failed."""
    task = asyncio.create_task(watch(runtime, lags))
    groups = asyncio.create_task(watch_groups(runtime))
    try:
        yield task
    finally:
        await end_tasks(task, groups)
    if not task.cancelled():
        task.result()


async def _whole(runtime: Runtime) -> None:
    """Ask for a write, and whether anybody has found that the state is not whole."""
    lost = await runtime.store.probe()
    if lost is None:
        runtime.health.back("state")
    else:
        runtime.health.away("state", lost)


def group_topics(settings: Settings) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By kind of worker, their group and what it reads."""
    return {
        "stream": (stream_group(settings), INPUTS),
        "generator": (generator_group(settings), (IMPRESSIONS,)),
    }


async def watch_groups(runtime: Runtime, every_s: float = GROUPS_EVERY_S) -> None:
    """Show how far behind the workers' groups are, in every partition, for ever: where all stream
    workers are gone, a generator still tells."""
    await asyncio.sleep(every_s / 3)  # a worker that starts has better to do
    while True:
        settings = runtime.settings
        groups = group_topics(settings)
        try:
            async with asyncio.timeout(every_s):
                found = {
                    name: await group_lags(settings, group, topics)
                    for name, (group, topics) in groups.items()
                }
        except Exception as error:  # it is no reason to end, and to be told
            log.warning("group_lag_unknown", error=str(error) or type(error).__name__)
            found = {}
        GROUP_LAG.clear()
        for name, lags in found.items():
            for (topic, partition), behind in lags.items():
                GROUP_LAG.labels(name, topic, str(partition)).set(behind)
        await asyncio.sleep(every_s)


class KafkaWatch:
    """Watches whether Kafka is there, and how far behind the worker is."""

    def __init__(
        self,
        producer: EventProducer,
        health: WorkerHealth,
        lags: Callable[[], Awaitable[Lags]],
    ) -> None:
        self._producer = producer
        self._health = health
        self._lags = lags
        self._shown: set[tuple[str, int]] = set()

    async def look(self) -> None:
        """Look once. Raises what `lags` raises, but waits for servers."""
        await _ask("kafka", self._producer.ping, self._health)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await self._lags()
        except (StoreUnavailableError, KafkaUnavailableError, TimeoutError) as error:
            if self._health.outages.missed("lag", error) is not None:
                log.warning("lag_unknown", error=str(error) or "no answer")
            return
        self._health.outages.over("lag")
        for pair in self._shown - found.keys():
            LAG.remove(pair[0], str(pair[1]))
        for (topic, partition), behind in found.items():
            LAG.labels(topic, str(partition)).set(behind)
        self._shown = set(found)
        if not any(found.values()):
            self._health.beat()

    async def watch(self, every_s: float = EVERY_S) -> None:
        """Look every `every_s` seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)


class RedisWatch:
    """Watches how Redis is doing, and whether it evicts keys. What it took cannot be told, so once
    it has, the worker is unwell to its end."""

    def __init__(self, store: FeatureStore, health: WorkerHealth) -> None:
        self._store = store
        self._health = health
        self._before: int | None = None

    async def look(self) -> None:
        """Look once. Raises `StoreUnavailableError`."""
        before = time.time()
        skew = (before + time.time()) / 2 - await self._store.clock()
        CLOCK_SKEW.set(skew)
        where = "ahead of" if skew > 0 else "behind"
        told = f"this machine's clock is {abs(skew):.0f} s {where} that of Redis: let NTP set both"
        self._health.warn("clock", told if abs(skew) > MOST_SKEW_S else None)
        vitals = await self._store.vitals()
        if vitals is None:
            return
        REDIS_MEMORY.set(vitals.used_bytes)
        REDIS_MEMORY_LIMIT.set(vitals.limit_bytes)
        REDIS_SAVES.set(vitals.saves)
        evicted = vitals.evicted
        EVICTED.set(evicted)
        if self._before is not None and evicted > self._before:
            self._health.away(
                "evictions",
                f"Redis evicted {evicted - self._before:,} keys: the state may have gaps. Set "
                "maxmemory-policy to noeviction, and build the state anew: onebar rebuild",
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
