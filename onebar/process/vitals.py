"""What every long-running process shows of its health, as metrics: an alert needs no more."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client import Gauge

HEALTHY = Gauge(
    "onebar_healthy", "1 where the process is well, 0 where not.", multiprocess_mode="livemin"
)
DEPENDENCY_UP = Gauge(
    "onebar_dependency_up",
    "1 where what the process stands on is as it needs it, 0 where not.",
    ["dependency"],
    multiprocess_mode="livemin",
)
WARNING = Gauge(
    "onebar_warning",
    "1 where someone should look at this, though the process does its work.",
    ["about"],
    multiprocess_mode="livemax",
)

_warned: set[str] = set()
"""What was ever warned of: it goes back to 0."""


def show(problems: Collection[str], known: Iterable[str], warnings: Collection[str] = ()) -> None:
    """Set them: what is wrong, of all that is known to be needed; and what there is to look at."""
    HEALTHY.set(0 if problems else 1)
    for name in {*known, *problems}:
        DEPENDENCY_UP.labels(name).set(0 if name in problems else 1)
    for about in {*_warned, *warnings}:
        WARNING.labels(about).set(1 if about in warnings else 0)
    _warned.update(warnings)
