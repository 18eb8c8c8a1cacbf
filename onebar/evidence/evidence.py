"""The evidence of one (video, user) pair: E(x, u) = <T, M, A, H>."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from msgspec import Struct

from onebar.evidence.scripts import HAN
from onebar.evidence.words import Word, parts, words
from onebar.records import Features, HistoryEntry, VideoText

MAX_ANCHORS = 8
MAX_HISTORY = 3

HAN_CHARACTER = re.compile(f"[{HAN}]")


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """Match keys of the words that are too common to relate one text to another."""
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
    """What relevance is judged by: the match keys of the words that say something, in any script.

    A hyphenated word counts as each of its parts. Chinese words count as their pairs of characters,
    as two segmentations of the same thing differ; one of a single character counts by itself where
    nothing stands beside it, else in pairs with its neighbours.
    """
    found: set[str] = set()
    before: Word | None = None
    for word in words(text):
        if not HAN_CHARACTER.match(word.text):
            if not word.function:
                found.update(parts(word))
            before = None
            continue
        if not word.function:
            found.update(word.key[i : i + 2] for i in range(max(1, len(word.key) - 1)))
        lone = before is not None and 1 in (len(word.key), len(before.key))
        if before is not None and lone and before.end == word.start:
            found.add(before.key[-1] + word.key[0])
            found.discard(word.key if len(word.key) == 1 else before.key)
        before = word
    return frozenset(found - stop_words())


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
