"""The evidence of one (video, user) pair: E(x, u) = <T, M, A, H>."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from msgspec import Struct

from onebar.records import Features, HistoryEntry, VideoText

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


def trigger_text(video: VideoText) -> str:
    """T, M and the category of a cleaned video in one line: what relevance is judged by and what
    is embedded. Empty where nothing is known."""
    return one_line(video_line(video), video.summary, video.category)


def one_line(text: str, summary: str, category: str) -> str:
    """The parts that hold something, in one line."""
    return " ".join(part for part in (text, summary, category) if part)


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


Relevance = Callable[[Sequence[str], str, Sequence[str]], Sequence[bool]]
"""Which of some queries touch a video, given its text in one line and its anchors."""


def shares_a_term(queries: Sequence[str], text: str, anchors: Sequence[str]) -> list[bool]:
    """A query touches a video where it shares a term with its text or its anchors."""
    known = terms(" ".join((text, *anchors)))
    return [not known.isdisjoint(_query_terms(query)) for query in queries]


def relevant_history(
    history: Sequence[HistoryEntry],
    text: str,
    anchors: Sequence[str],
    *,
    limit: int = MAX_HISTORY,
    relevance: Relevance = shares_a_term,
) -> tuple[str, ...]:
    """The newest queries that touch the video (paper: H after a relevance filter).

    Whatever else a user searched leaves the evidence as it is, so users who have nothing to add
    share one prompt and one generation.
    """
    if not history:
        return ()
    newest = sorted(history, key=lambda entry: (-entry.ts, entry.query))
    queries = list(dict.fromkeys(entry.query for entry in newest))
    touching = relevance(queries, text, anchors)
    return tuple(query for query, yes in zip(queries, touching, strict=True) if yes)[:limit]


def assemble(
    features: Features,
    *,
    max_anchors: int = MAX_ANCHORS,
    max_history: int = MAX_HISTORY,
    neighbors: bool = False,
    relevance: Relevance = shares_a_term,
) -> Evidence:
    """The evidence in what the store knows of a pair. Empty fields where nothing is known.

    With `neighbors` the anchors of videos near this one, and queries of the log that are, stand
    behind its own.
    """
    video = features.text or VideoText()
    asked = (a.query for a in features.anchors if neighbors or a.source == "behavior")
    anchors = tuple(islice(asked, max_anchors))
    return Evidence(
        text=video_line(video),
        summary=video.summary,
        anchors=anchors,
        history=relevant_history(
            features.history, trigger_text(video), anchors, limit=max_history, relevance=relevance
        ),
    )
