"""From answers to a dataset that training and evaluation read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from onebar.evidence.evidence import Evidence, video_line
from onebar.evidence.text import REJECT
from onebar.records import VideoText
from onebar.teaching.answers import Answer
from onebar.triggers import Split, Trigger

Verdict = Literal["queries", "rejected", "sensitive", "risky", "no text", "refused", "nothing left"]


class Taught(Struct, frozen=True):
    """A cleaned video and what became of it.

    `sensitive` by the event's own mark and `risky` by the rules of serving, both without a
    question; `no text`: there was nothing to ask about; `refused` by the teacher's endpoint;
    `nothing left` of an answer that was no reject.
    """

    video_id: str
    ts: float
    video: VideoText
    verdict: Verdict
    queries: tuple[str, ...] = ()
    dropped: Mapping[str, int] = {}


def verdict(answer: Answer) -> Verdict:
    if answer.rejected:
        return "rejected"
    return "queries" if answer.queries else "nothing left"


def evidence_of(video: VideoText) -> Evidence:
    """What the bar under a cleaned video stands on while nobody has tapped anything."""
    return Evidence(text=video_line(video), summary=video.summary)


def split_of(video: VideoText, valid: float, test: float) -> Split:
    """The part that a video belongs to, by its text: the same in every run, and copies of a video
    are never on both sides."""
    digest = hashlib.sha256(video_line(video).casefold().encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


def triggers(taught: Taught, split: Split, teacher: str) -> Iterator[Trigger]:
    """What a video teaches. In the train part every query is a click; in the others the best one
    is, so that a video counts once in what is measured."""
    evidence = evidence_of(taught.video)
    common = Trigger(
        trigger_id=f"teach-{taught.video_id}",
        kind="click",
        ts=taught.ts,
        video_id=taught.video_id,
        category=taught.video.category,
        text=evidence.text,
        summary=evidence.summary,
        teacher=teacher,
    )
    if taught.verdict in ("rejected", "sensitive", "risky"):
        yield msgspec.structs.replace(common, kind="reject", target=REJECT)
    shown = taught.queries if split == "train" else taught.queries[:1]
    for number, query in enumerate(shown):
        yield msgspec.structs.replace(
            common, trigger_id=f"{common.trigger_id}-{number}", target=query
        )


def texts(taught: Iterable[Taught]) -> Iterator[str]:
    """What a vocabulary is learnt from: the text of each video, and its queries."""
    for each in taught:
        yield from (part for part in (video_line(each.video), each.video.summary) if part)
        yield from each.queries


def tally(taught: Iterable[Taught]) -> tuple[Counter[str], Counter[str]]:
    """How many videos of each verdict, and why queries were dropped."""
    verdicts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for each in taught:
        verdicts[each.verdict] += 1
        dropped.update(each.dropped)
    return verdicts, dropped
