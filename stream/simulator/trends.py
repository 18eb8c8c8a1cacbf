"""What is in the air: the long-tailed popularity of things, and waves that come and go."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate

QUARTER = 6 * 3600.0
"""Seconds for which popularity stays as it is."""


class Trends:
    """Popularity of `count` things from `start_ts` on; `rand` gives numbers in [0, 1)."""

    def __init__(self, count: int, start_ts: float, rand: Callable[[], float]) -> None:
        self._rand = rand
        self._start_ts = start_ts
        order = [index for _, index in sorted((rand(), index) for index in range(count))]
        self._weights = [0.0] * count
        for rank, index in enumerate(order):
            self._weights[index] = 1.0 / (rank + 12)
        # Period in days, phase, height.
        self._waves = [(2.0 + 12.0 * rand(), rand(), 6.0 * rand()) for _ in range(count)]
        self._quarter = -1
        self._sums: list[float] = []

    def pick(self, now: float) -> int:
        """A thing by its popularity at `now`."""
        quarter = int((now - self._start_ts) / QUARTER)
        if quarter != self._quarter:
            self._quarter = quarter
            weights = []
            for base, (period, phase, height) in zip(self._weights, self._waves, strict=True):
                turn = quarter / 4 / period + phase
                away = abs(turn - int(turn) - 0.5)
                weights.append(base * (1.0 + height * max(0.0, 1.0 - 6.0 * away)))
            self._sums = list(accumulate(weights))
        return bisect(self._sums, self._rand() * self._sums[-1], hi=len(self._sums) - 1)
