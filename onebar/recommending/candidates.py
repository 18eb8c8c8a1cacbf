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
from onebar.recommending.material import material as material_of
from onebar.recommending.pool import POOL, SPANS, Bounds, Pool, Taste, shipped_taste
from onebar.recommending.ranker import Proposal
from onebar.records import Candidate, Features

SURE = log(0.995)
"""A rejection counts from here: with nine in ten one or two of a hundred harmless texts would get
nothing, with this one of two hundred; what is to be rejected is mostly far above."""


class Rejection(StrEnum):
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


BARRED = (Rejection.REMOVED, Rejection.SENSITIVE, Rejection.RISKY)
"""Why nothing is shown under a video whatever is pinned to it."""


class Chosen(Struct, frozen=True):
    """What is shown, best first, or why nothing is; and why candidates were not."""

    queries: tuple[Candidate, ...] = ()
    reason: Rejection | None = None
    dropped: Mapping[str, int] = {}

    @property
    def rejected(self) -> bool:
        return not self.queries


def unfit(material: Material, risk: RiskClassifier) -> Rejection | None:
    """Why nothing may be generated from this, whatever a model would say."""
    if material.video.removed:
        return Rejection.REMOVED
    if material.video.sensitive:
        return Rejection.SENSITIVE
    texts = material.texts()
    if not any(word for text in (*texts, *material.queries()) for word in words(text)):
        return Rejection.NO_EVIDENCE
    if risk.risk(texts) is not None:
        return Rejection.RISKY
    return None


def why_barred(known: Features) -> Rejection | None:
    """Why a video carries no query at all, whatever is pinned to it: it is removed or marked, or
    its own text is about something harmful."""
    reason = unfit(material_of(known, ()), shipped_taste().risk)
    return reason if reason in BARRED else None


def choose(
    material: Material,
    beam: Sequence[Candidate],
    k: int,
    taste: Taste | None = None,
    *,
    from_text: bool = True,
    harmful: bool = False,
    bounds: Bounds | None = None,
) -> Chosen:
    """At most `k` (>= 1) queries, best first; their scores are logarithms of what each is `worth`
    as the one that is read, by the ranker: 0 at most.

    `beam` is a generation ordered best first, empty where there was none. Where its first is
    `[REJECT]`, as sure as `SURE` at least, only anchors that touch the video's text are shown; else
    it is dropped. Anchors worth a search at least are always among the queries, the strongest where
    there is no room.
    `from_text=False` leaves out the spans of the video's text. With `harmful` those harmful ones
    come on top that would be among the `k`: for a gate that knows whether a rule allows them. With
    `bounds` candidates of all sources are held to a repertoire, or those of it come first. Pure:
    equal material and beam, equal queries.
    """
    taste = taste or shipped_taste()
    reason = unfit(material, taste.risk)
    if reason is not None:
        return Chosen(reason=reason)
    pool = Pool(material, taste, bounds)
    pool.add_anchors()
    rejected = bool(beam) and beam[0].text.strip() == REJECT and beam[0].score >= SURE
    if rejected:
        pool.keep_anchors_of_the_text()
    else:
        pool.add_history()
        pool.add_beam(beam)
        pool.add_known()
        if from_text and taste.from_text:
            pool.add_spans(SPANS if taste.scorer is not None else POOL)
        pool.add_styled()
    queries = pool.best(k, harmful=harmful)
    nothing = Rejection.REJECTED if rejected else Rejection.NOTHING_LEFT
    return Chosen(queries, None if queries else nothing, pool.dropped)


def proposals(
    material: Material,
    beam: Sequence[Candidate],
    taste: Taste,
    *,
    also: Sequence[str] = (),
    exact: bool = False,
    spans: int | None = None,
) -> list[Proposal]:
    """All candidates that a ranker chooses from, whatever it thinks of them: what one is trained
    on. `also` are queries that need no source; with `exact` candidates of the same words in
    another order are two; `spans` are the most spans of the text, None for all."""
    pool = Pool(material, taste, exact=exact)
    pool.add_anchors()
    pool.add_history()
    pool.add_beam(beam)
    pool.add_known()
    pool.add_spans(spans)
    pool.add_styled()
    for query in also:
        pool.add(query)
    return pool.proposals()
