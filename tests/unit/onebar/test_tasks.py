from __future__ import annotations

import asyncio

import pytest

from onebar.process.tasks import end_tasks


async def forever(lose: int = 0) -> None:
    """Loses `lose` cancellations before it heeds one."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not lose:
                raise
            lose -= 1


async def fails() -> None:
    raise ValueError("a bug")


@pytest.mark.parametrize("lose", [0, 1, 3])
async def test_a_task_that_loses_cancellations_ends_all_the_same(lose: int) -> None:
    task = asyncio.create_task(forever(lose))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(task, again_after_s=0.01)
    assert task.cancelled()


async def test_how_a_task_ended_is_nobody_elses_trouble() -> None:
    failed, done = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0))
    running = asyncio.create_task(forever())
    await asyncio.wait((failed, done))
    await end_tasks(failed, done, running)
    assert isinstance(failed.exception(), ValueError)
    assert not done.cancelled()
    assert running.cancelled()
    await end_tasks()
