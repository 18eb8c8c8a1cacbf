"""What a teacher may say of a video: what may be shown under it."""

from __future__ import annotations

from collections.abc import Callable

from onebar.evidence.evidence import Evidence
from onebar.evidence.words import words
from onebar.gating.gate import never_shown
from onebar.gating.risk import shipped_rules
from onebar.recommending.grounding import Drop, Ground, is_fragment, presentable

Check = Callable[[str], str]
"""Why a normalised query doesn't fit one video; empty where it does."""


def check_of(evidence: Evidence) -> Check:
    """The check for the queries of one video: the gate, and that which holds generated candidates
    against the evidence, without a lexicon: a teacher knows more words than any. The reasons are
    `onebar.gating.gate.Held`'s and `onebar.recommending.grounding.Drop`'s."""
    ground = Ground((evidence.text, evidence.summary, *evidence.anchors))

    def check(query: str) -> str:
        if not presentable(query):
            return Drop.BROKEN.value
        if (held := never_shown(query)) is not None:
            return held.reason
        if is_fragment(query):
            return Drop.FRAGMENT.value
        dropped = ground.drop(words(query))
        return "" if dropped is None else dropped.value

    return check


def risky(evidence: Evidence) -> bool:
    """Whether the video's text is of a kind that serving keeps away from, whatever a teacher
    says."""
    return shipped_rules().risk((evidence.text, evidence.summary)) is not None
