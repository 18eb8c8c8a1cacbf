"""What is new in the evidence of a pair between two readings; pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from onebar.records import Features, VideoText

Field = Literal["T", "M", "A", "H"]
What = Literal["new", "stronger", "gone", "changed"]

NOTABLE = 0.01
"""Part by which an anchor's weight must have grown: it decays all the time, and is counted in
buckets, so that two readings of the same differ a little."""


class Change(Struct, frozen=True, omit_defaults=True):
    """One line of evidence that is another now. `query` is what it is about, empty for T and M;
    `before` and `after` are weights of an anchor, in units of one search."""

    field: Field
    what: What
    query: str = ""
    before: float | None = None
    after: float | None = None


def changes(before: Features, after: Features) -> tuple[Change, ...]:
    """What a reader would name as new: texts, anchors that came, grew or went, queries of the
    user's history that came or went. The strongest growth comes first."""
    old, new = before.text or VideoText(), after.text or VideoText()
    found: list[Change] = []
    if _told(old) != _told(new):
        found.append(Change("T", "changed" if before.text else "new"))
    if old.summary != new.summary:
        found.append(Change("M", "changed" if old.summary else "new"))
    return (*found, *_history(before, after), *_anchors(before, after))


def _told(text: VideoText) -> tuple[object, ...]:
    """All of a video's text but the summary, and its marks."""
    return tuple(getattr(text, name) for name in VideoText.__struct_fields__ if name != "summary")


def _anchors(before: Features, after: Features) -> list[Change]:
    was = {anchor.query: anchor.weight for anchor in before.anchors}
    found = []
    for anchor in after.anchors:
        weight = was.pop(anchor.query, None)
        if weight is None:
            found.append(Change("A", "new", anchor.query, None, anchor.weight))
        elif anchor.weight > weight * (1 + NOTABLE):
            found.append(Change("A", "stronger", anchor.query, weight, anchor.weight))
    found.sort(key=lambda change: (change.before or 0) - (change.after or 0))
    return found + [Change("A", "gone", query, weight, None) for query, weight in was.items()]


def _history(before: Features, after: Features) -> list[Change]:
    was = {entry.query: entry.ts for entry in before.history}
    found = []
    for entry in after.history:
        ts = was.pop(entry.query, None)
        if ts is None:
            found.append(Change("H", "new", entry.query))
        elif entry.ts > ts:
            found.append(Change("H", "stronger", entry.query))
    return found + [Change("H", "gone", query) for query in was]
