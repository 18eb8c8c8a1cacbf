"""Batches of one partition have their effect one behind the other, while several are in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from onebar.errors import OneBarError


class PredecessorFailedError(OneBarError, RuntimeError):
    """A batch before this one of its partition was not taken to its end, so this one must not be:
    what comes later in a partition raises the fences of what comes before."""

    def __init__(self) -> None:
        super().__init__("a batch of this partition that came before failed: take both again")


class Place:
    """Where a batch stands behind those that came before it.

    First it waits for its `turn`, has its effect, and lets the next `pass`. Then it waits to be the
    `first`, and does what is left. Both raise `PredecessorFailedError` where one before it failed.
    """

    def __init__(self, before: Iterable[Place]) -> None:
        self._before = tuple(before)
        self._passed = asyncio.Event()
        self._ended = asyncio.Event()
        self._failed = False

    async def turn(self) -> None:
        """Return once all that came before have had their effect."""
        for place in self._before:
            await place._passed.wait()
        self._look()

    def let_pass(self) -> None:
        """This one has had its effect."""
        self._passed.set()

    async def first(self) -> None:
        """Return once all that came before have ended."""
        for place in self._before:
            await place._ended.wait()
        self._look()
        self._before = ()

    def _look(self) -> None:
        if any(place._failed for place in self._before):
            raise PredecessorFailedError

    def _end(self, failed: bool) -> None:
        self._failed = failed
        self._before = ()
        self._passed.set()
        self._ended.set()


class Order:
    """Who stands where. Of the event loop that it is used in."""

    def __init__(self) -> None:
        self._last: dict[Hashable, Place] = {}

    @contextmanager
    def join(self, keys: Iterable[Hashable]) -> Iterator[Place]:
        """Stand behind all who are in such a block with one of these keys. Leaving the block by an
        error fails those who stand behind; who joins later does not stand behind anybody then."""
        keys = frozenset(keys)
        place = Place({self._last[key] for key in keys if key in self._last})
        self._last.update(dict.fromkeys(keys, place))
        failed = True
        try:
            yield place
            failed = False
        finally:
            place._end(failed)
            for key in keys:
                if self._last.get(key) is place:
                    del self._last[key]
