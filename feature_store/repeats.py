"""What counts once, told by the log alone.

Time is cut into dedupe windows by when the log took a record, and what came in two windows that
touch came once: a retry, a replay and a phone that sends its backlog again are repeats for one to
two windows, and count anew after that. So how often a thing counts is the number of windows that it
came in without having come in the one before. That is a property of the log: whenever and in
whatever order its partitions are read, live or in a rebuild months later, the same comes of it.

To take records in any order, the first of a window adds one, unless the window before has the thing
already, and takes one back if the window after has it: two stretches of repeats have then met.
"""

from __future__ import annotations

from collections.abc import Hashable

from feature_store.writes import BehaviorAdd, Position


def recorded_at(write: BehaviorAdd, position: Position | None) -> float:
    """When the log took a write (UTC epoch seconds): its own time where that is not known."""
    if position is None or position.timestamp is None:
        return write.ts
    return position.timestamp


def dedupe_window(timestamp: float, window_s: float) -> int:
    """The window of what the log took at `timestamp`; windows last `window_s` (both seconds)."""
    return int(timestamp // window_s)


def count_change(seen: set[tuple[int, Hashable]], what: Hashable, window: int) -> int:
    """How much more often `what` counts now that it came in `window`: 1, 0 or -1. Notes it."""
    if (window, what) in seen:
        return 0
    seen.add((window, what))
    return int((window - 1, what) not in seen) - int((window + 1, what) in seen)
