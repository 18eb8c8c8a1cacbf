"""Whether a query is in the writing of its video: a teacher that answers in another language is
met every day."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from onebar.evidence.evidence import Evidence

_ONE = {"CJK": "HAN", "HIRAGANA": "HAN", "KATAKANA": "HAN", "FULLWIDTH": "LATIN"}


@lru_cache(maxsize=65536)
def _script(char: str) -> str:
    name = unicodedata.name(char, "").partition(" ")[0]
    return _ONE.get(name, name)


def scripts(text: str) -> set[str]:
    """The writings that a text has letters of; Chinese and Japanese count as one."""
    return {_script(char) for char in text if char.isalpha()}


def same_script(query: str, evidence: Evidence) -> bool:
    """A query has no letters of a writing that its video has none of, and some of the one that most
    of the video is in, unless each of its words stands in the video as it is (a brand)."""
    text = f"{evidence.text} {evidence.summary}".lower()
    known, used = scripts(text), scripts(query)
    if not used or not known:
        return True
    if not used <= known:
        return False
    letters = [_script(char) for char in text if char.isalpha()]
    main = max(sorted(known), key=letters.count)
    if main == "LATIN" or main in used:
        return True
    return all(word in text for word in query.split())
