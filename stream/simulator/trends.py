"""What is in the air: the long-tailed popularity of things, and waves that come and go."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate

QUARTER = 6 * 3600.0
"""Seconds for which popularity stays as it is."""


class Trends:
    """Popularity of `count` things from `start_ts` on; `rand` gives numbers in [0, 1).

    `zipf` is the exponent of its head, 0 for a mild one. At `shift_ts` a share `shift` of the
    things change places, and those that are `new` come up in front; before that none of these is
    popular at all.
    """

    def __init__(
        self,
        count: int,
        start_ts: float,
        rand: Callable[[], float],
        *,
        zipf: float = 0.0,
        shift_ts: float | None = None,
        shift: float = 0.0,
        new: frozenset[int] = frozenset(),
    ) -> None:
        self._rand = rand
        self._start_ts = start_ts
        self._zipf = zipf
        order = [index for _, index in sorted((rand(), index) for index in range(count))]
        self._weights = self._by_rank(order)
        self._shift_ts = shift_ts
        self._shifted: list[float] = []
        if shift_ts is not None:
            self._shifted = self._by_rank(self._moved(order, shift, new))
            if len(new) < count:
                for index in new:
                    self._weights[index] = 0.0
        # Period in days, phase, height.
        self._waves = [(2.0 + 12.0 * rand(), rand(), 6.0 * rand()) for _ in range(count)]
        self._quarter = -1
        self._sums: list[float] = []

    def _by_rank(self, order: list[int]) -> list[float]:
        weights = [0.0] * len(order)
        for rank, index in enumerate(order):
            weights[index] = 1.0 / (rank + 12) if not self._zipf else (rank + 1) ** -self._zipf
        return weights

    def _moved(self, order: list[int], share: float, new: frozenset[int]) -> list[int]:
        """The order after the shift: some in the places of others, the new ones first."""
        moved = [at for at in range(len(order)) if self._rand() < share]
        drawn = sorted((self._rand(), at) for at in moved)
        after = list(order)
        for at, (_, other) in zip(moved, drawn, strict=True):
            after[at] = order[other]
        return [each for each in after if each in new] + [each for each in after if each not in new]

    def pick(self, now: float) -> int:
        """A thing by its popularity at `now`."""
        if self._shift_ts is not None and now >= self._shift_ts:
            self._weights, self._shift_ts, self._quarter = self._shifted, None, -1
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
