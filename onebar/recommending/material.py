"""What candidates are made from: the evidence by field, with the weights of its anchors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from math import floor, log

import msgspec
from msgspec import Struct

from onebar.evidence.evidence import Evidence
from onebar.evidence.prompt import PART
from onebar.records import MAX_COUNTED, Anchor, Features, VideoText

MAX_ANCHORS = 8
"""Anchors that are looked at; so many near queries as well."""
MAX_RECENT = 20
"""Of a user's newest queries, those that tell how they put things."""
VOICE = 1.0
"""Searches that an anchor must be worth to be shown whatever the ranker thinks of it."""


class Count(Struct, frozen=True):
    """How a query fared under the video, in steps: exposures in powers of four, taps and
    engagements in powers of two."""

    query: str
    exposures: int = 0
    clicks: int = 0
    engagements: int = 0


class Material(Struct, frozen=True):
    """What candidates are made from, beside the beam: T and M by field, A with its weights, and
    the relevant part of H. An answer depends on nothing else of the evidence.

    `recent` (the user's newest queries, newest first, about whatever) and `counts` are there for
    a ranker that has learned from clicks, and empty without one: then users whose evidence is the
    same have one answer.
    """

    video: VideoText = VideoText()
    anchors: tuple[Anchor, ...] = ()
    history: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()
    counts: tuple[Count, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """T and M."""
        video = self.video
        fields = (video.item_title, video.title, video.caption, video.summary, video.ocr, video.asr)
        return tuple(field for field in fields if field)

    def queries(self) -> tuple[str, ...]:
        """A and H."""
        return (*(anchor.query for anchor in self.anchors), *self.history)

    def encoded(self) -> bytes:
        """Equal for equal material."""
        return msgspec.json.encode(self)


def material(features: Features, history: Sequence[str], *, clicks: bool = False) -> Material:
    """What candidates for a pair are made from. `history` is the part of H that touches the video.
    `clicks`: with what a ranker that has learned from clicks looks at.

    Anchors keep of their weights only which power of four they reach: they decay from moment to
    moment, and an answer is to stay the same while the evidence is.
    """
    own = [anchor for anchor in features.anchors if anchor.source == "behavior"][:MAX_ANCHORS]
    near = [anchor for anchor in features.anchors if anchor.source != "behavior"][:MAX_ANCHORS]
    kept = tuple(Anchor(a.query, _level(a.weight), a.source) for a in (*own, *near))
    made = Material(features.text or VideoText(), kept, tuple(history))
    if not clicks:
        return made
    recent = tuple(entry.query for entry in features.history)
    return seen(made, recent, features.counts)


def told(evidence: Evidence, weights: Sequence[float] = ()) -> Material:
    """The same from evidence that was told without fields: a logged trigger. `weights` are those
    of its anchors, what stands behind them or weighs 0 is of near videos; where there are none
    each anchor is worth a search."""
    title, *more = evidence.text.split(PART)
    video = VideoText(title=title, caption=PART.join(more), summary=evidence.summary)
    known = [weight for weight in weights if weight > 0] if weights else [VOICE] * MAX_ANCHORS
    own = (Anchor(q, _level(w)) for q, w in zip(evidence.anchors, known, strict=False))
    near = (Anchor(query, VOICE, "neighbor") for query in evidence.anchors[len(known) :])
    return Material(video, (*own, *near), evidence.history)


def seen(
    made: Material, recent: Sequence[str], counts: Iterable[tuple[str, int, int, int]]
) -> Material:
    """The same with what a ranker that has learned from clicks looks at: the user's newest
    queries, and (query, exposures, clicks, engagements) under the video, most exposed first."""
    return msgspec.structs.replace(
        made,
        recent=tuple(recent[:MAX_RECENT]),
        counts=tuple(
            Count(query, _power(shown, 4), _power(tapped, 2), _power(engaged, 2))
            for query, shown, tapped, engaged in islice(counts, MAX_COUNTED)
        ),
    )


def _power(count: int, base: int) -> int:
    """The greatest power of `base` that a count reaches, 0 for none: a counter that moves is not
    to change the answer every time."""
    if count < 1:
        return 0
    power = 1
    while power * base <= count:
        power *= base
    return power


def _level(weight: float) -> float:
    return 0.0 if weight < VOICE else min(VOICE * 4.0 ** floor(log(weight / VOICE, 4)), 64.0)
