"""Several processes of one server: what whichever is asked says for all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api.health import ReadinessProbe
from api.http.schemas import Readiness
from api.peers import SILENT_S, Peers, together

READY = Readiness(True, "ok", "ok", "ok", "demo-1")
LOADING = Readiness(False, "ok", "ok", "loading")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pair(directory: Path, clock: Clock) -> tuple[Peers, Peers]:
    first, second = (Peers(directory, 2, name=name, clock=clock) for name in ("1", "2"))
    return first, second


def test_ready_once_every_process_is(tmp_path: Path) -> None:
    first, second = pair(tmp_path, Clock())
    first.tell(READY)
    found = first.together(READY)
    assert not found.ready
    assert found.model == "1 of 2 API processes tell that they are ready"
    second.tell(LOADING)
    assert first.together(READY) == LOADING
    second.tell(READY)
    assert first.together(READY) == second.together(READY) == READY


def test_what_one_says_is_as_of_now_and_not_as_it_told(tmp_path: Path) -> None:
    first, second = pair(tmp_path, Clock())
    first.tell(READY)
    second.tell(READY)
    assert first.together(LOADING) == LOADING


def test_a_process_that_ended_or_is_silent_counts_no_more(tmp_path: Path) -> None:
    clock = Clock()
    first, second = pair(tmp_path, clock)
    second.tell(READY)
    assert first.together(READY).ready
    clock.now += SILENT_S
    assert not first.together(READY).ready
    second.tell(READY)
    assert first.together(READY).ready
    second.forget()
    second.forget()
    assert not first.together(READY).ready


def test_one_that_took_the_place_of_another_may_stand_beside_it(tmp_path: Path) -> None:
    """A process that was killed is heard of for a while; its successor has to be ready as well."""
    clock = Clock()
    first, killed = pair(tmp_path, clock)
    killed.tell(READY)
    successor = Peers(tmp_path, 2, name="3", clock=clock)
    successor.tell(LOADING)
    assert first.together(READY) == LOADING
    successor.tell(READY)
    assert first.together(READY) == READY


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_one_that_is_not_ready_says_why(at: int) -> None:
    kafka = Readiness(False, "connecting", "ok", "ok")
    all_ = [READY, READY, READY]
    all_[at] = kafka
    assert together(all_[0], all_[1:], 3) == kafka


def test_a_warning_of_any_is_told() -> None:
    warned = Readiness(True, "ok", "ok", "ok", "demo-1", "the current one is damaged")
    assert together(READY, [warned], 2) == warned
    assert together(warned, [READY], 2) == warned


async def test_a_probe_tells_the_others_and_asks_them(tmp_path: Path) -> None:
    class There:
        async def check(self) -> str:
            return "ok"

        async def probe(self) -> None:
            return None

        status = "ok"
        live = type("Live", (), {"name": "demo-1", "warning": None})

    there: Any = There()
    first, second = (
        ReadinessProbe(there, there, there, peers=Peers(tmp_path, 2, name=name)) for name in "12"
    )
    assert not (await first.readiness()).ready
    task = asyncio.create_task(second.watch())
    async with asyncio.timeout(20):
        while not (await first.readiness()).ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not (await first.readiness()).ready, "it took back what it had told as it ended"
