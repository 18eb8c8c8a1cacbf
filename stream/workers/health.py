"""Beside a worker's loop: are its servers there, how far behind is it, does it get on?

Neither Faust nor aiokafka says that Kafka is away; they just bring nothing more. So each server
is asked from time to time, whether there is work or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from feature_store.redis.client import StoreUnavailableError
from onebar.process.tasks import end_tasks
from stream.kafka.topics import KafkaUnavailableError
from stream.workers.metrics import LAG, WorkerHealth
from stream.workers.runtime import Runtime

log = structlog.get_logger(__name__)

Lags = Mapping[tuple[str, int], int]
"""(topic, partition) -> records that have not had their effect yet."""

EVERY_S = 2.0
ANSWER_WITHIN_S = 5.0


async def watch(
    runtime: Runtime, lags: Callable[[], Awaitable[Lags]], every_s: float = EVERY_S
) -> None:
    """Look every `every_s` seconds, for ever. Raises what `lags` raises, unless Kafka is away."""
    shown: set[tuple[str, int]] = set()
    while True:
        await _ask("redis", runtime.store.ping, runtime.health)
        await _ask("kafka", runtime.producer.ping, runtime.health)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await lags()
        except (KafkaUnavailableError, TimeoutError) as error:
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


async def _ask(name: str, ping: Callable[[], Awaitable[None]], health: WorkerHealth) -> None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await ping()
    except (StoreUnavailableError, KafkaUnavailableError, TimeoutError) as error:
        said = str(error) or f"no answer within {ANSWER_WITHIN_S:g} s"
        health.away(name, said, source="watch")
    else:
        health.back(name, source="watch")
