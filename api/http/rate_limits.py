"""Rate limits: one token bucket a caller, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 10_000
"""Buckets kept; the one longest unused goes first, and its caller starts with a full one."""


class RateLimiter:
    """Allows each caller `per_s` requests a second, and up to one second's worth at once.

    Counts in this process only: several workers allow several times as much. `per_s` 0 allows
    everything.
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
