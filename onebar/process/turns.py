"""Long work on an event loop, a piece at a time: what is short never waits for more than one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar
from weakref import WeakKeyDictionary

PIECE_S = 0.002
"""How long a piece of work may take. What is short waits for about as long, however much long work
there is."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Turns:
    """Gives turns to whoever has long work to do, in the order in which they ask: one in a round of
    the loop. Belongs to one event loop, and `turns()` is the one that all of it shares."""

    def __init__(self, piece_s: float = PIECE_S) -> None:
        self._piece_s = piece_s
        self._lock = asyncio.Lock()
        self.waiting = 0
        """How many wait for a turn."""

    async def turn(self) -> None:
        """Returns when it is the caller's turn: to work for `piece_s`, up to its next `await`."""
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        asyncio.get_running_loop().call_soon(self._lock.release)

    async def over(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Result],
        *,
        until: float | None = None,
    ) -> list[Result]:
        """The result of `work` for each item, in pieces. What has one item is short: that is done
        at once.

        At `until` (loop time; None is never) it ends, with the results for the first items alone.
        Raises what `work` does.
        """
        if len(items) == 1:
            return [work(items[0])]
        loop = asyncio.get_running_loop()
        results: list[Result] = []
        ends = 0.0
        for item in items:
            if perf_counter() >= ends:
                await self.turn()
                if until is not None and loop.time() >= until:
                    break
                ends = perf_counter() + self._piece_s
            results.append(work(item))
        return results


_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Those of the running loop."""
    loop = asyncio.get_running_loop()
    found = _OF.get(loop)
    if found is None:
        found = _OF[loop] = Turns()
    return found
