"""How well H is chosen: which of a user's queries touch the video, judged by what they then tapped.

A query counts as having mattered where it shares a term with the one that was clicked.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from onebar.evidence.evidence import Relevance, shares_a_term
from onebar.triggers import Trigger


class HistoryQuality(Struct, frozen=True, kw_only=True):
    """Of one way to choose, over some triggers with a clicked query."""

    triggers: int
    precision: float
    """Share of the chosen queries that mattered; NaN where none was chosen."""
    recall: float
    """Share of those that mattered that were chosen; NaN where none did."""
    f1: float
    """Their harmonic mean; 0 where there is none."""
    size: float
    """Queries chosen for a trigger, on average, before the prompt's limit."""
    shared: float
    """Share of triggers for which none was: their users share the video's cache entry."""


def history_quality(triggers: Sequence[Trigger], relevance: Relevance) -> HistoryQuality:
    """The quality of `relevance` on the users' newest queries (`Trigger.recent`)."""
    chosen = mattered = right = empty = 0
    for trigger in triggers:
        kept = relevance(trigger.recent, trigger.video_text, trigger.anchors)
        wanted = shares_a_term(trigger.recent, trigger.target, ())
        chosen += sum(kept)
        mattered += sum(wanted)
        right += sum(yes and good for yes, good in zip(kept, wanted, strict=True))
        empty += not any(kept)

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return HistoryQuality(
        triggers=len(triggers),
        precision=share(right, chosen),
        recall=share(right, mattered),
        f1=2 * right / (chosen + mattered) if right else 0.0,
        size=share(chosen, len(triggers)),
        shared=share(empty, len(triggers)),
    )
