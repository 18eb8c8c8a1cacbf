"""What candidates are made from: the evidence by field, with the weights of its anchors."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log

import msgspec
from msgspec import Struct

from onebar.evidence.evidence import Evidence
from onebar.evidence.prompt import PART
from onebar.records import Anchor, Features, VideoText

MAX_ANCHORS = 8
"""Anchors that are looked at; so many near queries as well."""
VOICE = 1.0
"""Searches that an anchor must be worth to be shown whatever the ranker thinks of it."""


class Material(Struct, frozen=True):
    """What candidates are made from, beside the beam: T and M by field, A with its weights, and
    the relevant part of H. An answer depends on nothing else of the evidence."""

    video: VideoText = VideoText()
    anchors: tuple[Anchor, ...] = ()
    history: tuple[str, ...] = ()

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


def material(features: Features, history: Sequence[str]) -> Material:
    """What candidates for a pair are made from. `history` is the part of H that touches the video.

    Anchors keep of their weights only which power of four they reach: they decay from moment to
    moment, and an answer is to stay the same while the evidence is.
    """
    own = [anchor for anchor in features.anchors if anchor.source == "behavior"][:MAX_ANCHORS]
    near = [anchor for anchor in features.anchors if anchor.source != "behavior"][:MAX_ANCHORS]
    kept = (Anchor(a.query, _level(a.weight), a.source) for a in (*own, *near))
    return Material(features.text or VideoText(), tuple(kept), tuple(history))


def told(evidence: Evidence) -> Material:
    """The same from evidence that was told without fields and weights: a logged trigger."""
    title, *more = evidence.text.split(PART)
    video = VideoText(title=title, caption=PART.join(more), summary=evidence.summary)
    return Material(video, tuple(Anchor(q, VOICE) for q in evidence.anchors), evidence.history)


def _level(weight: float) -> float:
    return 0.0 if weight < VOICE else min(VOICE * 4.0 ** floor(log(weight / VOICE, 4)), 64.0)
