"""Light post-checks on what a model generated, and the rejection rule."""

from __future__ import annotations

from collections.abc import Sequence

from onebar.evidence.text import REJECT, SPECIAL_TOKENS, normalize_query
from onebar.records import Candidate

MAX_CANDIDATE_CHARS = 64
REPLACEMENT = "\ufffd"
"""What a decoder leaves where bytes form no character."""

__all__ = ["MAX_CANDIDATE_CHARS", "REJECT", "decide", "presentable"]


def presentable(text: str) -> str:
    """The query as it may be shown, or an empty string where it must not be.

    Dropped: nothing but white space or punctuation, broken characters, special tokens, more than
    `MAX_CANDIDATE_CHARS` characters.
    """
    folded = text.casefold()
    if REPLACEMENT in text or any(token.casefold() in folded for token in SPECIAL_TOKENS):
        return ""
    query = normalize_query(text)
    if len(query) > MAX_CANDIDATE_CHARS or not any(char.isalnum() for char in query):
        return ""
    return query


def decide(candidates: Sequence[Candidate], k: int) -> tuple[tuple[Candidate, ...], bool]:
    """`(queries, rejected)` from a generation ordered best first.

    Rejected when the best candidate is `[REJECT]` (lower down it is only dropped), and when no
    candidate may be shown: so there are queries exactly where nothing is rejected. Queries keep
    their order, each once after normalisation, at most `k` (>= 1).
    """
    if candidates and candidates[0].text.strip() == REJECT:
        return (), True
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        query = presentable(candidate.text)
        if query and query not in kept:
            kept[query] = Candidate(query, candidate.score)
            if len(kept) == k:
                break
    return tuple(kept.values()), not kept
