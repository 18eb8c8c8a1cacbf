"""Long work in pieces."""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

import pytest

from onebar.process.turns import SWITCH_S, Turns


def busy(seconds: float) -> None:
    ends = perf_counter() + seconds
    while perf_counter() < ends:
        pass


async def test_results_come_in_order_and_errors_are_raised() -> None:
    turns = Turns()
    assert await turns.over(range(5), lambda n: n * n) == [0, 1, 4, 9, 16]
    assert await turns.over([], str) == []
    with pytest.raises(ZeroDivisionError):
        await turns.over([1, 0], lambda n: 1 / n)
    assert await turns.over([1], str) == ["1"]  # and whoever comes next has a turn


async def test_one_piece_a_round_whoever_works() -> None:
    """However many work, what waits for one round waits for one piece."""
    turns = Turns(piece_s=0.0)
    done: list[int] = []
    rounds: list[int] = []

    async def short() -> None:
        while len(done) < 40:
            before = len(done)
            await asyncio.sleep(0)
            rounds.append(len(done) - before)

    works = [turns.over(range(10), done.append) for _ in range(4)]
    await asyncio.gather(short(), *works)
    assert len(done) == 40
    assert max(rounds) <= 1


async def test_it_ends_in_time_with_what_there_is() -> None:
    loop = asyncio.get_running_loop()
    turns = Turns(piece_s=0.001)
    until = loop.time() + 0.03
    results = await turns.over(range(1000), lambda _: busy(0.001), until=until)
    assert 0 < len(results) < 1000
    assert await turns.over(range(3), str, until=loop.time() - 1) == []


async def test_whoever_is_cancelled_leaves_the_turn_to_others() -> None:
    turns = Turns(piece_s=0.0)
    tasks = [asyncio.create_task(turns.over(range(100), str)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in tasks[:2]:
        task.cancel()
    assert len(await tasks[2]) == 100


async def test_threads_wait_less_for_the_interpreter_while_there_is_long_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And as long as ever before it, after it, and beside work that is short."""
    monkeypatch.setattr("onebar.process.turns.CALM_S", 0.01)
    usual = sys.getswitchinterval()
    turns = Turns(piece_s=0.0)
    await turns.over(["short"], str)
    assert sys.getswitchinterval() == usual
    seen = await turns.over(range(20), lambda _: sys.getswitchinterval())
    assert seen == [pytest.approx(SWITCH_S)] * 20
    loop = asyncio.get_running_loop()
    over = loop.time() + 5
    while sys.getswitchinterval() != usual and loop.time() < over:
        await turns.over(["short"], str)
        await asyncio.sleep(0.001)
    assert sys.getswitchinterval() == usual
    assert await turns.over(range(2), str) == ["0", "1"]  # and the next long work begins anew
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    await asyncio.sleep(0.05)
