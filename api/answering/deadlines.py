"""One timer for the deadlines of many futures: setting and cancelling one each is felt in a hit."""

from __future__ import annotations

import asyncio
import math
from typing import Any

ROOM = 1024
"""Futures watched before those that are done are let go for the first time."""


class Deadlines:
    """Fails futures that are not done by their deadlines. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watched: list[tuple[float, asyncio.Future[Any]]] = []
        self._room = ROOM
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, future: asyncio.Future[Any], deadline: float) -> None:
        """`TimeoutError` for the future at `deadline` (loop time), unless it is done by then."""
        self._watched.append((deadline, future))
        if deadline < self._next:
            self._set(deadline)
        if len(self._watched) > self._room:
            self._forget_done()
            self._room = max(ROOM, 2 * len(self._watched))

    def _forget_done(self) -> None:
        self._watched = [entry for entry in self._watched if not entry[1].done()]

    def _set(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = deadline
        self._timer = asyncio.get_running_loop().call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        self._timer, self._next = None, math.inf
        now = asyncio.get_running_loop().time()
        for deadline, future in self._watched:
            if deadline <= now and not future.done():
                future.set_exception(TimeoutError("no answer by the deadline"))
        self._forget_done()
        if self._watched:
            self._set(min(deadline for deadline, _ in self._watched))
