"""What a teacher may say of a video: the same as what may be shown under it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

from onebar.evidence.evidence import Evidence, shares_a_term

Check = Callable[[str], str]
"""Why a normalised query doesn't fit one video; empty where it does."""

_ONE = {"CJK": "HAN", "HIRAGANA": "HAN", "KATAKANA": "HAN", "FULLWIDTH": "LATIN"}


@lru_cache(maxsize=65536)
def _script(char: str) -> str:
    name = unicodedata.name(char, "").partition(" ")[0]
    return _ONE.get(name, name)


def scripts(text: str) -> set[str]:
    """The writings that a text has letters of; Chinese and Japanese count as one."""
    return {_script(char) for char in text if char.isalpha()}


def check_of(evidence: Evidence) -> Check:
    """The check for the queries of one video.

    `language`: a query has letters of a writing that its video has none of, or none of the one that
    most of the video is in (a brand may stand alone if the video has it). `ungrounded`: it shares
    no term with the video.
    """
    text = f"{evidence.text} {evidence.summary}".lower()
    letters = [_script(char) for char in text if char.isalpha()]
    known = set(letters)
    main = max(sorted(known), key=letters.count, default="")

    def check(query: str) -> str:
        used = scripts(query)
        if used and not used <= known:
            return "language"
        if used and main not in (*used, "LATIN") and any(w not in text for w in query.split()):
            return "language"
        return "" if shares_a_term([query], text, evidence.anchors)[0] else "ungrounded"

    return check
