"""What takes long lets what is short go first: on an event loop it is done a piece at a time, in a
thread beside it with less of a claim to the processor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar
from weakref import WeakKeyDictionary

PIECE_S = 0.002
"""How long a piece of work may take. What is short waits for about as long, however much long work
there is."""
NICE = 5
"""How much nicer a thread that stands back is: where another wants the core too, that gets three
quarters of it (`man 7 sched`)."""
NICEST = 19
SWITCH_S = 0.0005
"""How long other threads wait for the interpreter's lock while the loop has long work to do. A
server's own thread needs it for each request and each piece of a body that it hands over: at
Python's 5 ms a request could wait for 130 ms to be seen at all. Where all work is short, to take
turns as often costs a tenth of it."""
CALM_S = 0.1
"""After so long without long work that is as it was."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Turns:
    """Gives turns to whoever has long work to do, in the order in which they ask: one in a round of
    the loop. Belongs to one event loop, and `turns()` is the one that all of it shares."""

    def __init__(self, piece_s: float = PIECE_S) -> None:
        self._piece_s = piece_s
        self._lock = asyncio.Lock()
        self._busy_until = 0.0
        self._calming: asyncio.TimerHandle | None = None
        self.waiting = 0
        """How many wait for a turn."""

    async def turn(self) -> None:
        """Returns when it is the caller's turn: to work for `piece_s`, up to its next `await`."""
        self._let_threads_in()
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        asyncio.get_running_loop().call_soon(self._lock.release)

    def _let_threads_in(self) -> None:
        """Have other threads wait less long for the interpreter, for as long as turns are taken."""
        loop = asyncio.get_running_loop()
        self._busy_until = loop.time() + CALM_S
        if self._calming is None:
            sys.setswitchinterval(SWITCH_S)
            self._calming = loop.call_at(self._busy_until, self._calm)

    def _calm(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._busy_until:
            self._calming = loop.call_at(self._busy_until, self._calm)
        else:
            self._calming = None
            sys.setswitchinterval(_USUAL_S)

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


_USUAL_S = sys.getswitchinterval()
_OF: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Those of the running loop."""
    loop = asyncio.get_running_loop()
    found = _OF.get(loop)
    if found is None:
        found = _OF[loop] = Turns()
    return found


def stand_back() -> None:
    """Have the calling thread, and the threads that it begins, stand behind those of the process
    that have not called this. On Linux, where each thread has a priority of its own; elsewhere
    nothing is done.

    Only for threads that compute outside the interpreter: one that waits for a core with the
    interpreter's lock in hand keeps all others waiting.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mine = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(NICEST, mine + NICE))
