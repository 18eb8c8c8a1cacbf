"""How long what is new has to wait for the event loop: time that a request has lost before it is
looked at."""

from __future__ import annotations

import asyncio
import time

from api.http.metrics import LOOP_LAG

TICK_S = 0.02
"""How often the loop is asked."""
AGAIN_S = 0.002
"""How soon it is asked again after it was late: what comes then need not have waited."""
LATE_S = 0.003
FADING = 0.8
"""What is left with each tick of how late it was lately."""
SHOWN_S = 15.0
"""For how long the most of it is shown as a metric."""


class Lag:
    """Ticks, and sees how late each tick comes. Belongs to one event loop."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """How late the loop was with the last tick: a request that is begun now has waited as long
        at most, but for the time from tick to tick."""
        self.recent = 0.0
        """The most of that lately: about as long takes each round of the loop that an answer still
        has to go through."""
        self._due = 0.0
        self._most = 0.0
        self._shown = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._set(TICK_S)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, after_s: float) -> None:
        self._due = time.monotonic() + after_s
        self._timer = asyncio.get_running_loop().call_later(after_s, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        late = now - self._due
        self.seconds = late if late > LATE_S else 0.0
        self.recent = max(late, FADING * self.recent)
        self._most = max(self._most, late)
        if now - self._shown >= SHOWN_S:
            LOOP_LAG.set(max(0.0, self._most))
            self._most, self._shown = 0.0, now
        self._set(AGAIN_S if self.seconds else TICK_S)
