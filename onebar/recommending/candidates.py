"""From all the evidence to what is shown: one function, whatever the candidates came from.

Candidates are the generator's beam, the video's anchors, the user's relevant history, and spans of
the video's own text. What was generated is held against the evidence (`grounding`); a ranker orders
what is left; of candidates that say the same one stays; and the list is spread over what may be
wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import log

from msgspec import Struct

from onebar.evidence.text import REJECT
from onebar.evidence.words import words
from onebar.gating.risk import RiskClassifier
from onebar.recommending.material import Material
from onebar.recommending.pool import POOL, Pool, Taste, shipped_taste
from onebar.recommending.ranker import Proposal
from onebar.records import Candidate

SURE = log(0.9)
"""A rejection counts from here: with even odds two of a hundred harmless texts would get nothing,
with these one; what is to be rejected is mostly far above."""


class Reason(StrEnum):
    """Why nothing is shown."""

    SENSITIVE = "sensitive"
    """The video is marked."""
    REMOVED = "removed"
    """The video is gone."""
    RISKY = "risky"
    """Its text is about something a bar must keep away from."""
    NO_EVIDENCE = "no_evidence"
    """No word is known of it: nothing to generate from."""
    REJECTED = "rejected"
    """The model said so."""
    NOTHING_LEFT = "nothing_left"
    """No candidate may be shown."""
    HELD_BACK = "held_back"
    """The gate let none pass: a rule, personal data, or harm."""


class Chosen(Struct, frozen=True):
    """What is shown, best first, or why nothing is; and why candidates were not."""

    queries: tuple[Candidate, ...] = ()
    reason: Reason | None = None
    dropped: Mapping[str, int] = {}

    @property
    def rejected(self) -> bool:
        return not self.queries


def unfit(material: Material, risk: RiskClassifier) -> Reason | None:
    """Why nothing may be generated from this, whatever a model would say."""
    if material.video.removed:
        return Reason.REMOVED
    if material.video.sensitive:
        return Reason.SENSITIVE
    texts = material.texts()
    if not any(word for text in (*texts, *material.queries()) for word in words(text)):
        return Reason.NO_EVIDENCE
    if risk.risk(texts) is not None:
        return Reason.RISKY
    return None


def choose(
    material: Material,
    beam: Sequence[Candidate],
    k: int,
    taste: Taste | None = None,
    *,
    from_text: bool = True,
) -> Chosen:
    """At most `k` (>= 1) queries, best first; their scores are logarithms of what each is `worth`
    as the one that is read, by the ranker: 0 at most.

    `beam` is a generation ordered best first, empty where there was none. Where its first is
    `[REJECT]`, with nine in ten at least, only anchors that touch the video's text are shown; else
    it is dropped. Anchors worth a search at least are always among the queries, the strongest where
    there is no room.
    `from_text=False` leaves out the spans of the video's text. Pure: equal material and beam, equal
    queries.
    """
    taste = taste or shipped_taste()
    reason = unfit(material, taste.risk)
    if reason is not None:
        return Chosen(reason=reason)
    pool = Pool(material, taste)
    pool.add_anchors()
    rejected = bool(beam) and beam[0].text.strip() == REJECT and beam[0].score >= SURE
    if rejected:
        pool.keep_anchors_of_the_text()
    else:
        pool.add_history()
        pool.add_beam(beam)
        if from_text and taste.from_text:
            pool.add_spans(POOL)
    queries = pool.best(k)
    nothing = Reason.REJECTED if rejected else Reason.NOTHING_LEFT
    return Chosen(queries, None if queries else nothing, pool.dropped)


def proposals(material: Material, beam: Sequence[Candidate], taste: Taste) -> list[Proposal]:
    """All candidates that a ranker chooses from, whatever it thinks of them: what one is trained
    on."""
    pool = Pool(material, taste)
    pool.add_anchors()
    pool.add_history()
    pool.add_beam(beam)
    pool.add_spans(None)
    return pool.proposals()
