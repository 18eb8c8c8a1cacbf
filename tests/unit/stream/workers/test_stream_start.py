from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from onebar.settings import Settings
from stream.workers import faust_app, stream
from stream.workers.metrics import WorkerHealth


class HangingApp:
    """Faust, as it waits for a broker that has gone silent to give it partitions."""

    def __init__(self) -> None:
        self.starting = asyncio.Event()
        self.stopped = False

    def finalize(self) -> None: ...

    async def maybe_start(self) -> None:
        self.starting.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped = True


def test_a_worker_told_to_end_before_it_has_partitions_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*_: object) -> dict[Any, int]:
        return {}

    async def run() -> None:
        app = HangingApp()
        monkeypatch.setattr(faust_app, "build_app", lambda *_: app)
        monkeypatch.setattr(stream, "check_continuity", nothing)
        health, leave = WorkerHealth(), asyncio.Event()
        runtime: Any = SimpleNamespace(
            store=SimpleNamespace(note_lost=nothing), producer=None, health=health, leave=leave
        )
        work = asyncio.create_task(stream._work(Settings(), runtime))
        await app.starting.wait()
        leave.set()
        async with asyncio.timeout(5):
            await work
        assert app.stopped

    asyncio.run(run())
