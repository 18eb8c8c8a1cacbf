"""One timer, many deadlines: nobody waits past theirs, and nothing done is kept."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.answering.coalesce import Coalescer
from api.answering.deadlines import ROOM, Deadlines


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=20))
def test_each_fails_at_its_deadline_and_not_before(entries: list[tuple[int, bool]]) -> None:
    """(milliseconds until the deadline, whether the answer comes at once)."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines()
        failed: dict[int, float] = {}
        futures = []
        began = loop.time()
        for at, (left_ms, answered) in enumerate(entries):
            future: asyncio.Future[str] = loop.create_future()
            deadlines.watch(future, began + left_ms / 1000)
            if answered:
                future.set_result("in time")
            else:
                future.add_done_callback(lambda _, at=at: failed.setdefault(at, loop.time()))
            futures.append(future)
        found = await asyncio.gather(*futures, return_exceptions=True)
        for at, (left_ms, answered) in enumerate(entries):
            if answered:
                assert found[at] == "in time"
            else:
                assert isinstance(found[at], TimeoutError)
                assert failed[at] >= began + left_ms / 1000

    asyncio.run(check())


async def test_what_is_done_is_let_go() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines()
    for _ in range(10 * ROOM):
        future: asyncio.Future[None] = loop.create_future()
        deadlines.watch(future, loop.time() + 3600)
        future.set_result(None)
    assert len(deadlines) <= ROOM


async def test_a_question_fails_at_its_deadline_while_the_others_wait_on() -> None:
    let_go = asyncio.Event()

    async def many(items: object) -> list[str]:
        await let_go.wait()
        return ["late"]

    together: Coalescer[str, str] = Coalescer(many)
    loop = asyncio.get_running_loop()
    patient = together.ask("a")
    with pytest.raises(TimeoutError):
        await together.ask("a", loop.time() + 0.01)
    let_go.set()
    assert await patient == "late"
