"""When a worker is well, how it waits for its servers, and how often it says so."""

from __future__ import annotations

import logging

import pytest

from feature_store.redis.client import StoreUnavailableError
from stream.kafka.topics import KafkaUnavailableError
from stream.workers import retry
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back
from stream.workers.runtime import REPEAT_AFTER_S, _Seldom


def test_a_worker_is_unwell_until_it_has_started() -> None:
    health = WorkerHealth()
    assert "start" in health.problems
    health.started()
    assert health.problems == {}


def test_a_dependency_is_back_when_everyone_who_missed_it_says_so() -> None:
    health = WorkerHealth()
    health.started()
    health.away("redis", "timed out")
    health.away("redis", "refused", source="watch")
    health.back("redis", source="watch")
    assert health.problems == {"redis": "timed out"}
    health.back("redis")
    assert health.problems == {}


def test_without_a_beat_a_worker_is_stalled() -> None:
    health = WorkerHealth(stalled_after_s=0.0)
    health.started()
    assert "loop" in health.problems


async def test_a_call_is_repeated_until_its_servers_are_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
    health = WorkerHealth()
    health.started()
    outcomes = [
        StoreUnavailableError("Redis is away"),
        KafkaUnavailableError("host:1", "is away"),
        StoreUnavailableError("Redis is away again"),
    ]
    seen: list[set[str]] = []

    async def call() -> str:
        seen.append(set(health.problems))
        if outcomes:
            raise outcomes.pop(0)
        return "done"

    assert await until_back(call, health) == "done"
    assert seen == [set(), {"redis"}, {"redis", "kafka"}, {"redis", "kafka"}]
    assert health.problems == {}


async def test_any_other_error_is_raised_at_once() -> None:
    async def call() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await until_back(call, WorkerHealth())


def test_a_library_says_the_same_thing_seldom() -> None:
    seldom = _Seldom()

    def passes(message: str, argument: int, created: float) -> bool:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, message, (argument,), None)
        record.created = created
        return seldom.filter(record)

    assert passes("no node %s", 1, created=100.0)
    assert not passes("no node %s", 2, created=101.0)
    assert passes("no topic %s", 1, created=101.0)
    assert passes("no node %s", 1, created=100.0 + REPEAT_AFTER_S)
