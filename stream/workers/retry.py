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
            _tell(name, error, health)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
        else:
            for name in missed:
                health.back(name)
                away_s = health.outages.over(name)
                if away_s is not None:
                    log.info("dependency_back", dependency=name, away_s=round(away_s, 1))
            return value


def _tell(name: str, error: Exception, health: WorkerHealth) -> None:
    away_s = health.outages.missed(name, error)
    if away_s == 0:
        log.warning("dependency_away", dependency=name, error=str(error))
    elif away_s is not None:
        log.warning(
            "dependency_still_away", dependency=name, error=str(error), away_s=round(away_s)
        )
