"""The facets of a summary: what a model is asked, and what is taken of its answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onebar.evidence.text import plain_line

FACETS = ("Visual", "Audio", "Plot", "Scene", "Intent")
"""What is seen, what is heard, what happens, where it is, and what a viewer may want (paper)."""
LIMIT = 160
"""Characters kept of a facet."""
_ASKED = {
    "Visual": "the main objects and what they look like",
    "Audio": "what is said or heard",
    "Plot": "what happens",
    "Scene": "where it is",
    "Intent": "what a viewer may want to search for or buy",
}
_LINE = re.compile(r"^[\s\-*#>\d.]*\**(\w+)\**\s*[:：]\s*(.*)$")
_NOTHING = frozenset({"", "none", "n/a", "na", "unknown", "null", "无", "没有", "未知"})


def question(heard: str = "") -> str:
    """What the model is asked beside the frames; `heard` is what was said in the video."""
    lines = ["These are frames of one short video, in their order."]
    if heard:
        lines.append(f"In it is said: {plain_line(heard)[:600]}")
    lines.append("Answer in five short lines, in the language of the video, each of this form:")
    lines += [f"{facet}: {asked}" for facet, asked in _ASKED.items()]
    return "\n".join(lines)


def read_answer(answer: str) -> dict[str, str]:
    """The facets in an answer, in their order; what is none, empty or said twice is left out.

    An answer without any is taken for what is seen.
    """
    found: dict[str, str] = {}
    for line in answer.splitlines():
        match = _LINE.match(line)
        if match and (facet := match[1].capitalize()) in FACETS and facet not in found:
            found[facet] = _told(match[2])
    if not found:
        found["Visual"] = _told(answer)
    seen: set[str] = set()
    kept: dict[str, str] = {}
    for facet in FACETS:
        text = found.get(facet, "")
        if text.casefold().strip(" .。") not in _NOTHING | seen:
            seen.add(text.casefold().strip(" .。"))
            kept[facet] = text
    return kept


def summary(facets: Mapping[str, str]) -> str:
    """The facets in one line: `Visual: … Plot: …`; empty where there are none."""
    return " ".join(f"{facet}: {text.rstrip(' .。')}." for facet, text in facets.items() if text)


def _told(text: str) -> str:
    return plain_line(text.replace("**", ""))[:LIMIT].strip()
