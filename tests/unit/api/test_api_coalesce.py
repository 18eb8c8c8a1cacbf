"""Calls of one tick travel together, and neither failures nor stalls spread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from api.answering.coalesce import Coalescer
from feature_store.redis.client import StoreUnavailableError


class Server:
    """Doubles numbers; notes each call. Holds calls back while `open` is not set."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        await self.open.wait()
        if 13 in items:
            raise ValueError("13")
        if 404 in items:
            raise StoreUnavailableError("away")
        return [2 * item for item in items]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_tick_is_one_call() -> None:
    server = Server()
    together = Coalescer(server)
    assert await asyncio.gather(*map(together.ask, [1, 2, 3, 2])) == [2, 4, 6, 4]
    assert server.calls == [[1, 2, 3]]
    assert await together.ask(4) == 8
    assert server.calls == [[1, 2, 3], [4]]


async def test_long_ticks_are_cut() -> None:
    server = Server()
    together = Coalescer(server, max_items=2)
    assert await asyncio.gather(*map(together.ask, range(5))) == [0, 2, 4, 6, 8]
    assert server.calls == [[0, 1], [2, 3], [4]]


async def test_while_calls_are_on_their_way_the_rest_gathers() -> None:
    server = Server()
    server.open.clear()
    together = Coalescer(server, max_flights=2)
    asked = []
    for item in range(5):
        asked.append(together.ask(item))
        await settle()
    assert server.calls == [[0], [1]]
    server.open.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8]
    assert server.calls == [[0], [1], [2, 3, 4]]


async def test_what_nobody_waits_for_is_not_asked() -> None:
    server = Server()
    server.open.clear()
    together = Coalescer(server, max_flights=1)
    first = together.ask(1)
    await settle()
    gone, wanted, twice, thrice = (together.ask(item) for item in (2, 3, 4, 4))
    gone.cancel()
    twice.cancel()
    server.open.set()
    assert await asyncio.gather(first, wanted, thrice) == [2, 6, 8]
    assert server.calls == [[1], [3, 4]]


async def test_everyone_gone_leaves_nothing_behind() -> None:
    server = Server()
    server.open.clear()
    together = Coalescer(server, max_flights=1)
    first, second = together.ask(1), None
    await settle()
    second = together.ask(2)
    first.cancel()
    second.cancel()
    server.open.set()
    await settle()
    assert await together.ask(3) == 6
    assert server.calls == [[1], [3]]


async def test_a_bad_item_fails_alone() -> None:
    together = Coalescer(Server())
    results = await asyncio.gather(*map(together.ask, [1, 13, 2]), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_a_server_that_is_away_fails_the_whole_call_once() -> None:
    server = Server()
    together = Coalescer(server)
    results = await asyncio.gather(*map(together.ask, [1, 404, 2]), return_exceptions=True)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    assert len(server.calls) == 1
    assert await together.ask(5) == 10


async def test_cancelling_the_waiter_cancels_its_question_only() -> None:
    server = Server()
    server.open.clear()
    together = Coalescer(server)

    async def wait() -> int:
        return await together.ask(7)

    one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    await settle()
    one.cancel()
    server.open.set()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert await other == 14
