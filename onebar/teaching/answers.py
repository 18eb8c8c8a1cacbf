"""From what a teacher said to queries: lists, numbers, JSON and prose are all met, none trusted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.recommending.grounding import REPLACEMENT
from onebar.teaching.checks import Check

LONGEST = 48
"""Characters of a query that a teacher may propose."""
MOST_WORDS = 7
REJECTS = frozenset({"reject", "[reject]", "rejected"})

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^\s*```.*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•·‣▪]+|\(?\d{1,2}\s*[.)）、:：]|[①-⑳])\s*")
_LABEL = re.compile(
    r"^(?:searches|search|queries|query|suggestions|搜索词?|查询|关键词)\s*[:：]\s*", re.IGNORECASE
)
_SEPARATOR = re.compile(r"\s*[|｜;；]\s*|\s*[、，]\s*|,\s+")
_QUOTES = " \t\"'`“”‘’「」『』《》*_"
_SENTENCE_END = ("。", "！", "!", "…", ":", "：")
_FIELDS = ("query", "text", "search", "q", "title", "name")


class Answer(Struct, frozen=True):
    """What a teacher's words come to.

    `queries` are normalised, the best first. `dropped` counts why others are not among them, or
    why there is none at all.
    """

    queries: tuple[str, ...] = ()
    rejected: bool = False
    dropped: Mapping[str, int] = {}


def read_answer(text: str, check: Check, *, count: int) -> Answer:
    """At most `count` queries of an answer that pass the check. Never raises.

    Reasons beside those of the check: `nothing` said; `broken`, half a character; `prose`, a
    sentence; `too long`; `said twice`.
    """
    said = _FENCE.sub("", _THOUGHT.sub("", text)).strip()
    if not said:
        return Answer(dropped={"nothing": 1})
    found = _json(said)
    if found is None:
        if _is_reject(said.splitlines()[0]):
            return Answer(rejected=True)
        found = list(_lines(said))
    elif found == [] and _says_reject(said):
        return Answer(rejected=True)
    if found and _is_reject(found[0]):
        return Answer(rejected=True)
    dropped: Counter[str] = Counter()
    queries: dict[str, None] = {}
    for each in found:
        query = normalize_query(each.strip(_QUOTES))
        if not query or _is_reject(query):
            continue
        if reason := _unfit(query, each):
            dropped[reason] += 1
        elif query in queries:
            dropped["said twice"] += 1
        elif reason := check(query):
            dropped[reason] += 1
        elif len(queries) < count:
            queries[query] = None
    if not queries and not dropped:
        dropped["nothing"] = 1
    return Answer(tuple(queries), False, dict(dropped))


def _is_reject(line: str) -> bool:
    return line.strip(_QUOTES + ".。!！").casefold() in REJECTS


def _unfit(query: str, written: str) -> str:
    if REPLACEMENT in written:
        return "broken"
    words = query.split()
    if written.rstrip(_QUOTES).endswith(_SENTENCE_END) or (
        len(words) > MOST_WORDS or (len(words) > 3 and query.endswith("."))
    ):
        return "prose"
    if len(query) > LONGEST:
        return "too long"
    return ""


def _lines(said: str) -> Iterator[str]:
    """The items of a list, one a line or all in one line."""
    lines = [line for line in said.splitlines() if line.strip()]
    for line in lines:
        item = _LABEL.sub("", _BULLET.sub("", line)).strip()
        parts = [part for part in _SEPARATOR.split(item) if part.strip()]
        if len(parts) > 1 and all(len(part.split()) <= MOST_WORDS for part in parts):
            yield from parts
        elif item:
            yield item


def _json(said: str) -> list[str] | None:
    """The strings of the first JSON list or object in what was said; None where there is none."""
    start = min((at for at in map(said.find, "[{") if at >= 0), default=-1)
    if start < 0 or _is_reject(said):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(said[start:])
    except (ValueError, RecursionError):
        return None
    return list(_strings(value))


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth > 4:
        return
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, depth + 1)
    elif isinstance(value, dict):
        named: Iterable[Any] = [value[name] for name in _FIELDS if isinstance(value.get(name), str)]
        lists = [each for each in value.values() if isinstance(each, list | dict)]
        for each in lists or list(named)[:1]:
            yield from _strings(each, depth + 1)


def _says_reject(said: str) -> bool:
    """A JSON answer that holds no query, but `"reject": true`."""
    return re.search(r'"reject(?:ed)?"\s*:\s*true', said, re.IGNORECASE) is not None
