"""Batches into a store that says when: what is done while it is busy, and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from feature_store.keys import Keys
from feature_store.plan import Plan
from feature_store.store import ApplyStats, FeatureStore
from feature_store.writes import Position, Write
from onebar.policy import StatePolicy
from stream.events import BEHAVIORS, Search, encode
from stream.kafka.order import PredecessorFailedError
from stream.kafka.records import Record
from stream.workers.ingest import Ingester
from stream.workers.metrics import WorkerHealth


class HeldStore(FeatureStore):
    """Is busy with what it was given until it is let go; says what came, in its order."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None), Keys("t", "g1"), StatePolicy())
        self.came: list[str] = []
        self.go = asyncio.Semaphore(0)
        self._news = asyncio.Event()

    def _tell(self, what: str) -> None:
        self.came.append(what)
        self._news.set()

    async def until(self, what: str, times: int = 1) -> None:
        """Return once this has come so often."""
        async with asyncio.timeout(10):
            while self.came.count(what) < times:
                self._news.clear()
                await self._news.wait()

    def plan(self, batch: Sequence[tuple[Write, Position | None]]) -> Plan:
        self._tell(f"planned {_last(batch)}")
        return super().plan(batch)

    async def carry_out(self, planned: Plan) -> ApplyStats:
        self._tell("sent")
        await self.go.acquire()
        return ApplyStats(applied=planned.idempotent)

    async def note_reached(
        self,
        offsets: Mapping[tuple[str, int], int],
        known: Mapping[tuple[str, int], int] | None = None,
    ) -> dict[tuple[str, int], int]:
        for (_, partition), offset in offsets.items():
            self._tell(f"noted {partition}/{offset}")
        return {pair: (known or {}).get(pair, -1) for pair in offsets}


def _last(batch: Sequence[tuple[Write, Position | None]]) -> str:
    position = batch[-1][1]
    assert position is not None
    return f"{position.partition}/{position.offset}"


def batch(partition: int, *offsets: int) -> list[Record]:
    return [
        Record(
            BEHAVIORS,
            partition,
            offset,
            100.0,
            b"v",
            encode(
                Search(
                    event_id=f"{partition}-{offset}",
                    ts=100.0,
                    user_id="u",
                    video_id="v",
                    query="boots",
                )
            ),
        )
        for offset in offsets
    ]


def started(ingester: Ingester, *batches: list[Record]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(ingester.take(each)) for each in batches]


def ingester_of(store: FeatureStore) -> Ingester:
    return Ingester(store, cast(Any, None), WorkerHealth())


def test_the_next_batch_is_planned_while_redis_has_one_and_sent_behind_it() -> None:
    async def run() -> list[str]:
        store = HeldStore()
        tasks = started(ingester_of(store), batch(0, 0, 1), batch(0, 2, 3))
        await store.until("planned 0/3")
        assert store.came.count("sent") == 1
        store.go.release()
        await tasks[0]
        store.go.release()
        await tasks[1]
        return store.came

    came = asyncio.run(run())
    sent = [at for at, what in enumerate(came) if what == "sent"]
    assert came.index("planned 0/3") < sent[1]
    assert came.index("noted 0/1") < came.index("noted 0/3")


def test_another_partition_does_not_wait() -> None:
    async def run() -> None:
        store = HeldStore()
        tasks = started(ingester_of(store), batch(0, 0), batch(1, 0))
        await store.until("sent", times=2)
        store.go.release()
        store.go.release()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_what_stands_behind_a_batch_that_was_cut_off_is_never_sent() -> None:
    async def run() -> None:
        store = HeldStore()
        ingester = ingester_of(store)
        first, second = started(ingester, batch(0, 0), batch(0, 1))
        await store.until("planned 0/1")
        first.cancel()
        with pytest.raises(PredecessorFailedError):
            await second
        assert store.came.count("sent") == 1
        store.go.release()
        store.go.release()
        for again in (batch(0, 0), batch(0, 1)):
            await ingester.take(again)
        assert store.came[-1] == "noted 0/1"

    asyncio.run(run())
