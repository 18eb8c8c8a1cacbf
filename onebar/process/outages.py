"""How often an outage is told: at once, then ever more seldom, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN_AFTER_S = 10.0
LONGEST_GAP_S = 600.0


class _Outage:
    def __init__(self, kind: type, now: float) -> None:
        self.kind = kind
        self.since = now
        self.again_at = now + AGAIN_AFTER_S
        self.gap_s = AGAIN_AFTER_S


class Outages:
    """What is away at the moment, by name. Several who miss the same have one outage between them,
    and who comes to tell of it asks here whether it is time to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, _Outage] = {}

    def missed(self, name: str, error: Exception) -> float | None:
        """For how long it has been away (s), 0 at first; None where that was told a short while
        ago, and it fails as it did then."""
        now = self._clock()
        outage = self._open.get(name)
        if outage is None:
            self._open[name] = _Outage(type(error), now)
            return 0.0
        if outage.kind is not type(error):
            outage.kind = type(error)
            return now - outage.since
        if now < outage.again_at:
            return None
        outage.gap_s = min(2 * outage.gap_s, LONGEST_GAP_S)
        outage.again_at = now + outage.gap_s
        return now - outage.since

    def over(self, name: str) -> float | None:
        """It is back: for how long it was away (s); None where it was not."""
        outage = self._open.pop(name, None)
        return None if outage is None else self._clock() - outage.since
