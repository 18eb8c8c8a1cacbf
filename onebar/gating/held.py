"""What the gate held back, counted."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

from onebar.gating.gate import Held

HELD = Counter("onebar_held_queries", "Queries that were held back, by reason.", ["reason"])
REASONS = ("rule", "personal", "harmful", "repertoire")
for _reason in REASONS:
    HELD.labels(_reason)  # seen at 0 first, the first one counts as an increase


def count_held(held: Iterable[Held]) -> None:
    """Count these."""
    for why in held:
        HELD.labels(why.reason).inc()
