"""English clauses: what tells that somebody does something is a piece of a sentence, no query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from onebar.evidence.words import Word
from onebar.recommending.phrases.names import role

_DATA = Path(__file__).parents[1] / "data"
_ASKS = frozenset(
    (
        *("how", "what", "what's", "when", "where", "which", "who", "whose", "why", "can", "could"),
        *("do", "does", "did", "is", "are", "should", "will"),
    )
)
"""What a question begins with: it has verbs of its own ("why dogs eat grass")."""
_WHO = frozenset(
    (
        *("i", "i'm", "i've", "i'll", "i'd", "we", "we're", "he", "she", "they", "they're"),
        *("you're", "me", "us", "him", "them", "it's", "myself"),
    )
)
_OBJECTS = _WHO | {"my", "your", "our", "his", "her", "their", "it", "this", "that"}
_BEFORE_THINGS = frozenset(("a", "an", "the"))
_TELLERS = frozenset(("we", "we're", "he", "she", "they", "they're"))
"""What tells how it was done ("how we cut our bill"); "how i met your mother" is a title."""
_AIM = 3
"""Words from which on what begins with "to" may be a title: "to kill a mockingbird"."""
_PAST = re.compile(
    r"[a-z]{2,}ed|bought|built|caught|drove|flew|found|gave|got|grew|kept|lost|made|met|rode|sold"
    r"|spent|taught|took|went|won|wore|wrote"
)


@lru_cache(maxsize=1)
def finite() -> frozenset[str]:
    """Verbs in forms that only sentences have (`data/finite.txt`), in lower case."""
    lines = (_DATA / "finite.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("//") for word in line.split())


def is_clause(found: Sequence[Word]) -> bool:
    """Whether an English phrase tells something: it says who does it, in the first or third person,
    or has a verb as only sentences have it, or one that is done to somebody's. What begins as a
    question does is none; an aim by itself ("to sleep") is one."""
    said = [word.text.lower() for word in found]
    if not said or said[0] in _ASKS:
        return said[:1] == ["how"] and not _TELLERS.isdisjoint(said[1:2])
    if said[0] == "to" and len(said) < _AIM:
        return True
    return any(map(tells, said)) or any(map(is_done_to, said, said[1:]))


def is_only_done(word: Word) -> bool:
    """Whether a word by itself tells what was done, and to what it does not say: "rented"."""
    return role(word) == "u" and _PAST.fullmatch(word.text) is not None


def tells(text: str) -> bool:
    """Whether a word in lower case makes a sentence of what it stands in."""
    return text in finite() or text in _WHO


def is_done_to(verb: str, behind: str) -> bool:
    """Whether a word in lower case is what somebody does to what stands behind it: "killing my
    fingers", "rented an ebike"; but not "baking a cake", as one may look for."""
    if behind in _BEFORE_THINGS:
        return _PAST.fullmatch(verb) is not None
    return behind in _OBJECTS and (verb.endswith("ing") or _PAST.fullmatch(verb) is not None)


def leaves_open(found: Sequence[Word], at: int) -> bool:
    """Whether a word is a verb whose object or aim stands behind it, so that no query ends with it:
    "compression socks save" of "… save me", "toddler refuses" of "… refuses to sleep"."""
    word, *behind = found[at : at + 2]
    if not behind or role(word) != "v":
        return False
    after = behind[0].text.lower()
    return after in _OBJECTS or after in _BEFORE_THINGS or after == "to"


def clause_ends(found: Sequence[Word]) -> list[int]:
    """For each place the last one before it, or it, at which a clause shows (-1: none): a phrase
    from `first` to `last` tells something where that of `last` is not before `first`."""
    ends = []
    reached = -1
    said = [word.text.lower() for word in found]
    pairs = [False, *(is_done_to(one, other) for one, other in pairwise(said))]
    for at, text in enumerate(said):
        if tells(text):
            reached = at
        elif pairs[at]:
            reached = max(reached, at - 1)
        ends.append(reached)
    return ends
