"""Whether keeping values pays: tried for a while, and where it does not, left for longer; pure."""

from __future__ import annotations

LEAST_AT_HAND = 0.2
"""Share of values at hand from which keeping pays: to keep one costs a quarter of what it saves."""
REST = 10
"""Values read without being kept, where it does not pay, for each one of the trial."""


class Admission:
    """Counts what was at hand and what had to be read. `admitting` says what to do for now."""

    def __init__(self) -> None:
        self.admitting = True
        self._at_hand = 0
        self._read = 0
        self._rest = 0

    def at_hand(self, count: int) -> None:
        """So many values were at hand."""
        self._at_hand += count

    def read(self, count: int) -> None:
        """So many were not. After enough of them a rest is over."""
        self._read += count
        if not self.admitting and self._read >= self._rest:
            self.admitting, self._at_hand, self._read = True, 0, 0

    def judge(self) -> float:
        """End the trial; the share of values that were at hand in it."""
        read, every = self._read, self._read + self._at_hand
        share = self._at_hand / every if every else 1.0
        self.admitting, self._rest = share >= LEAST_AT_HAND, REST * read
        self._at_hand = self._read = 0
        return share
