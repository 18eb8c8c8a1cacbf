"""Trying again until a dependency is back: workers wait for their servers, they never skip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from feature_store.redis.client import StoreUnavailableError
from stream.kafka.topics import KafkaUnavailableError
from stream.workers.metrics import RETRIES, WorkerHealth

log = structlog.get_logger(__name__)

Value = TypeVar("Value")
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


async def until_back(call: Callable[[], Awaitable[Value]], health: WorkerHealth) -> Value:
    """`call()`'s value, calling again with growing pauses while Redis or Kafka is away.

    Any other error is raised. Cancelling ends the waiting.
    """
    wait = FIRST_WAIT_S
    missed: set[str] = set()
    while True:
        try:
            value = await call()
        except (StoreUnavailableError, KafkaUnavailableError) as error:
            name = "redis" if isinstance(error, StoreUnavailableError) else "kafka"
            RETRIES.labels(name).inc()
            missed.add(name)
            health.away(name, str(error))
            health.beat()
            log.warning("dependency_away", dependency=name, error=str(error), again_in_s=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
        else:
            for name in missed:
                health.back(name)
            return value
