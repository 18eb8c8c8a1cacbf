"""What a teacher may say of a video: what may be shown under it."""

from __future__ import annotations

from collections.abc import Callable

from onebar.evidence.evidence import Evidence
from onebar.evidence.words import words
from onebar.gating.risk import shipped_rules
from onebar.recommending.grounding import Drop, Ground, presentable

Check = Callable[[str], str]
"""Why a normalised query doesn't fit one video; empty where it does."""


def check_of(evidence: Evidence) -> Check:
    """The check for the queries of one video: that which holds generated candidates against the
    evidence. The reasons are `onebar.recommending.grounding.Drop`'s."""
    ground = Ground((evidence.text, evidence.summary, *evidence.anchors))
    rules = shipped_rules()

    def check(query: str) -> str:
        if not presentable(query):
            return Drop.BROKEN.value
        if rules.risk((query,)) is not None:
            return Drop.RISKY.value
        dropped = ground.drop(words(query))
        return "" if dropped is None else dropped.value

    return check


def risky(evidence: Evidence) -> bool:
    """Whether the video's text is of a kind that serving keeps away from, whatever a teacher
    says."""
    return shipped_rules().risk((evidence.text, evidence.summary)) is not None
