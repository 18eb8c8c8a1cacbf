"""Rate limits: one token bucket a caller, in bounded memory; shared with other processes by
leases."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

MAX_CALLERS = 10_000
"""Buckets kept; the one longest unused goes first, and its caller starts with a full one."""


class RateLimiter:
    """Allows each caller `per_s` requests a second, and up to one second's worth at once.

    Counts in this process only: several allow several times as much. `per_s` 0 allows everything.
    """

    def __init__(
        self,
        per_s: float,
        *,
        max_callers: int = MAX_CALLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_s = per_s
        self.burst = max(1.0, per_s)
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str) -> float:
        """0.0 where the request may go on, else the seconds until the next one may."""
        if not self.per_s:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.get(caller, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.per_s)
        allowed = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if allowed else tokens, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - tokens) / self.per_s


LEASE_S = 0.05
"""Tokens are fetched for so long ahead: at least the one that is needed."""
KEPT_S = 0.2
"""And what is left of them after so long is not spent any more."""
PATIENCE_S = 0.05
"""How long the answer may take; then this process counts by itself."""

Fetch = Callable[[str, int, bool], Awaitable[tuple[int, float]]]
"""Caller, tokens wanted, whether they are owed already -> tokens granted, seconds until the next.
"""


class _Lease:
    __slots__ = ("busy", "ends", "left", "opens", "waiting")

    def __init__(self) -> None:
        self.left = 0
        self.ends = 0.0
        self.opens = 0.0
        self.waiting: list[asyncio.Future[float]] = []
        self.busy: asyncio.Task[None] | None = None


class SharedLimiter:
    """Allows each caller `per_s` requests a second of all processes together.

    Tokens come from a bucket that all share, some at a time; who finds the caller's gone does not
    ask again before there can be one. While the bucket can't be reached each process counts by
    itself. Belongs to one event loop.
    """

    def __init__(
        self,
        per_s: float,
        fetch: Fetch,
        *,
        max_callers: int = MAX_CALLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_s = per_s
        self._fetch = fetch
        self._clock = clock
        self._max_callers = max_callers
        self._alone = RateLimiter(per_s, max_callers=max_callers, clock=clock)
        self._leases: OrderedDict[str, _Lease] = OrderedDict()

    async def take(self, caller: str) -> float:
        """0.0 where the request may go on, else the seconds until the next one may."""
        now = self._clock()
        lease = self._lease(caller)
        if now < lease.opens:
            return lease.opens - now
        if lease.left and now < lease.ends:
            lease.left -= 1
            return 0.0
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        lease.waiting.append(future)
        if lease.busy is None:
            lease.busy = asyncio.create_task(self._renew(caller, lease))
        return await future

    async def owe(self, caller: str, count: int) -> None:
        """So many requests more were in one: the next ones wait for it."""
        if count > 0:
            self._lease(caller).left = 0
            await self._ask(caller, count, owed=True)

    def _lease(self, caller: str) -> _Lease:
        lease = self._leases.get(caller)
        if lease is None:
            lease = self._leases[caller] = _Lease()
            if len(self._leases) > self._max_callers:
                self._leases.popitem(last=False)
        else:
            self._leases.move_to_end(caller)
        return lease

    async def _ask(self, caller: str, count: int, *, owed: bool) -> tuple[int, float] | None:
        """None where the bucket can't be reached."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._fetch(caller, count, owed)
        except Exception:  # whatever is wrong with it, requests are answered
            return None

    async def _renew(self, caller: str, lease: _Lease) -> None:
        try:
            while lease.waiting:
                waiting, lease.waiting = lease.waiting, []
                count = len(waiting) + int(self.per_s * LEASE_S)
                found = await self._ask(caller, count, owed=False)
                now = self._clock()
                if found is None:
                    for future in waiting:
                        _tell(future, self._alone.take(caller))
                    continue
                granted, wait_s = found
                for future in waiting[:granted]:
                    _tell(future, 0.0)
                refused = waiting[granted:]
                if refused or not granted:
                    lease.opens = now + (wait_s or 1 / self.per_s)
                for future in refused:
                    _tell(future, lease.opens - now)
                lease.left = max(0, granted - len(waiting))
                lease.ends = now + KEPT_S
        finally:
            lease.busy = None


def _tell(future: asyncio.Future[float], wait_s: float) -> None:
    if not future.done():
        future.set_result(wait_s)
