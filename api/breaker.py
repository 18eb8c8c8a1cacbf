"""A server that is away is not asked again and again: one asks, the others go on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from api.http.metrics import BREAKERS
from onebar.process.tasks import end_tasks

log = structlog.get_logger(__name__)

FAILURES = 3
"""Failed calls in a row after which a server counts as away."""
STALL_S = 0.25
"""How long it may leave a call without an answer before it does."""
AGAIN_S = 0.01
PROBE_S = 0.2
"""How often it is tried meanwhile."""

Result = TypeVar("Result")


class Breaker:
    """Whether a server is worth asking, by what became of the calls to it.

    Closed, calls go through `call`. After `FAILURES` in a row that failed, or one that has waited
    for `STALL_S`, it is `open`: calls fail at once with the error that `away` makes, until a
    `probe` made in the background has come back. What callers give up at deadlines of their own
    says nothing. Belongs to one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        probe: Callable[[], Awaitable[object]],
        away: Callable[[str], Exception],
        counts: Callable[[Exception], bool],
        stall_s: float = STALL_S,
        probe_s: float = PROBE_S,
    ) -> None:
        """`away` makes the error of a call that is not made, from why; `counts` says whether an
        error of a call means that the server is away."""
        self.open = False
        self._name = name
        self._probe = probe
        self._away = away
        self._counts = counts
        self._stall_s = stall_s
        self._probe_s = probe_s
        self._failures = 0
        self._why = ""
        self._calls: dict[int, float] = {}
        self._number = self._suspected = 0
        self._watch: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._state = BREAKERS.labels(name)
        self._state.set(0)

    async def call(self, calling: Callable[[], Awaitable[Result]]) -> Result:
        """What the call gives. Raises what it raises, or what `away` makes where none is made."""
        if self.open:
            raise self._away(self._why)
        loop = asyncio.get_running_loop()
        number = self._number = self._number + 1
        self._calls[number] = loop.time()
        if self._watch is None:
            self._watch = loop.call_later(self._stall_s, self._look)
        try:
            result = await calling()
        except Exception as error:
            if self._counts(error):
                self.failed(f"{type(error).__name__}: {error}")
            else:
                self._failures = 0
            raise
        else:
            self._failures = 0
            return result
        finally:
            self._calls.pop(number, None)

    def failed(self, why: str) -> None:
        """One call more has failed, and so."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._break(why)

    def _look(self) -> None:
        """See to the oldest call that is out; while there are calls this comes again."""
        self._watch = None
        if self.open or not self._calls:
            return
        loop = asyncio.get_running_loop()
        oldest, began = next(iter(self._calls.items()))
        left = began + self._stall_s - loop.time()
        if left <= 0 and oldest == self._suspected:
            self._break(f"no answer for {self._stall_s:g} s")
            return
        # Its answer may be here, and the loop may not have come to read it: once more round.
        self._suspected = oldest if left <= 0 else 0
        self._watch = loop.call_later(max(left, AGAIN_S), self._look)

    def _break(self, why: str) -> None:
        if self.open:
            return
        self.open, self._why = True, why
        self._calls.clear()
        self._state.set(1)
        log.warning("breaker_opened", server=self._name, error=why)
        self._task = asyncio.create_task(self._mend())

    async def _mend(self) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            try:
                await self._probe()
            except Exception as error:
                self._why = f"{type(error).__name__}: {error}"
            else:
                break
        self.open, self._failures = False, 0
        self._state.set(0)
        log.info("breaker_closed", server=self._name)

    async def stop(self) -> None:
        """Probe no more."""
        if self._watch is not None:
            self._watch.cancel()
        if self._task is not None:
            await end_tasks(self._task)
