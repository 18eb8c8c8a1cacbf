"""An outage is told once, then ever more seldom, whoever misses it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from feature_store.redis.client import StoreUnavailableError
from onebar.process.outages import AGAIN_AFTER_S, LONGEST_GAP_S, Outages
from stream.kafka.topics import KafkaUnavailableError
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back

AWAY = StoreUnavailableError("Redis is away")


@given(st.lists(st.floats(0.01, 60.0), min_size=2, max_size=300))
def test_what_stays_away_is_told_with_growing_gaps(pauses: list[float]) -> None:
    now = 0.0
    outages = Outages(lambda: now)
    assert outages.missed("redis", AWAY) == 0
    told = [0.0]
    for pause in pauses:
        now += pause
        if outages.missed("redis", AWAY) is not None:
            told.append(now)
    waits = [min(AGAIN_AFTER_S * 2**n, LONGEST_GAP_S) for n in range(len(told))]
    for wait, (sooner, later) in zip(waits, pairwise(told), strict=False):
        assert wait <= later - sooner <= wait + max(pauses)
    assert now - told[-1] < waits[len(told) - 1] + max(pauses), "the next is not overdue"
    assert outages.over("redis") == now
    assert outages.over("redis") is None
    assert outages.missed("redis", AWAY) == 0


def test_another_failure_is_told_at_once() -> None:
    now = 0.0
    outages = Outages(lambda: now)
    assert outages.missed("redis", AWAY) == 0
    assert outages.missed("redis", AWAY) is None
    now = 1.0
    assert outages.missed("redis", TimeoutError()) == 1.0
    assert outages.missed("redis", TimeoutError()) is None
    assert outages.missed("kafka", TimeoutError()) == 0


async def test_many_who_wait_tell_it_once() -> None:
    """A hundred tasks that miss the same server have one line between them."""
    health = WorkerHealth()
    left = 300

    async def call() -> int:
        nonlocal left
        left -= 1
        if left > 0:
            raise KafkaUnavailableError("nowhere", "gone")
        return 7

    with capture_logs() as lines:
        assert await asyncio.gather(*(until_back(call, health) for _ in range(100))) == [7] * 100
    told = [line["event"] for line in lines]
    assert told.count("dependency_away") == 1
    assert told.count("dependency_back") == 1
    assert health.problems.keys() <= {"start"}
