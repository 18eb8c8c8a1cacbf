"""The evidence of one (video, user) pair: E(x, u) = <T, M, A, H>."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from feature_store.records import Features, HistoryEntry, VideoText

MAX_ANCHORS = 8
MAX_HISTORY = 3

_WORDS = re.compile(r"[^\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    lines = (Path(__file__).parent / "data" / "stop_words.txt").read_text(encoding="utf-8")
    return frozenset(line for line in lines.split("\n") if line and not line.startswith("//"))


class Evidence(Struct, frozen=True):
    """What a prompt is made of.

    `text` is T in one line, its parts divided by ` | `; `summary` is M; `anchors` are queries,
    strongest first; `history` are the user's queries that touch this video, newest first.
    """

    text: str = ""
    summary: str = ""
    anchors: tuple[str, ...] = ()
    history: tuple[str, ...] = ()


def video_line(video: VideoText) -> str:
    """T in one line, the most telling part first, so that a budget cuts the least telling.

    A part is cut to half of 176 bytes' worth of characters at most, so that a long title leaves
    room for the others.
    """
    parts = (
        video.item_title[:80],
        video.title[:80],
        video.caption[:120],
        video.ocr[:80],
        video.asr[:80],
        video.author[:24],
    )
    return " | ".join(part for part in parts if part)


def terms(text: str) -> frozenset[str]:
    """What relevance is judged by: lower-case words and CJK character pairs, no stop words.

    A plural English `s` is dropped; a CJK run of one character counts as itself.
    """
    found: set[str] = set()
    for word in _WORDS.findall(text.lower()):
        rest = word
        if not word.isascii():
            at = 0
            for run in _CJK.finditer(word):
                found.add(word[at : run.start()])
                chars = run[0]
                found.update(chars[i : i + 2] for i in range(max(1, len(chars) - 1)))
                at = run.end()
            rest = word[at:]
        found.add(rest[:-1] if len(rest) > 3 and rest.endswith("s") and rest[-2] != "s" else rest)
    found.discard("")
    return frozenset(found - _stop_words())


_query_terms = lru_cache(maxsize=8192)(terms)
"""Queries come again and again, and are short; the text of a video is neither."""


def relevant_history(
    history: tuple[HistoryEntry, ...], trigger: str, *, limit: int = MAX_HISTORY
) -> tuple[str, ...]:
    """The newest queries that share a term with the trigger (paper: H after a relevance filter).

    Whatever else a user searched leaves the evidence as it is, so users who have nothing to add
    share one prompt and one generation.
    """
    if not history:
        return ()
    known = terms(trigger)
    newest = sorted(history, key=lambda entry: (-entry.ts, entry.query))
    kept: list[str] = []
    for entry in newest:
        if len(kept) == limit:
            break
        if entry.query not in kept and not known.isdisjoint(_query_terms(entry.query)):
            kept.append(entry.query)
    return tuple(kept)


def assemble(
    features: Features, *, max_anchors: int = MAX_ANCHORS, max_history: int = MAX_HISTORY
) -> Evidence:
    """The evidence in what the store knows of a pair. Empty fields where nothing is known."""
    video = features.text or VideoText()
    text = video_line(video)
    anchors = tuple(anchor.query for anchor in features.anchors[:max_anchors])
    trigger = " ".join((text, video.category, video.summary, *anchors))
    history = relevant_history(features.history, trigger, limit=max_history)
    return Evidence(text=text, summary=video.summary, anchors=anchors, history=history)
