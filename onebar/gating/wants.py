"""What one request wants of the queries that may be shown; pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.evidence.words import words
from onebar.gating.repertoire import Constrain
from onebar.gating.rules import language_of
from onebar.records import Candidate


class Wants(Struct, frozen=True):
    """`exclude` are normalised queries that are not wanted again (tapped, ordered); `languages` are
    those of `onebar.gating.rules.LANGUAGES`, none for any; `max_length` is in characters. With a
    `diversity` of d (0 to 1) a query is left out that shares more than 1 - d of its words with one
    before it. `constrain` is for whoever makes the answer: how strictly it is of the repertoire.
    """

    exclude: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    max_length: int | None = None
    diversity: float = 0.0
    constrain: Constrain | None = None


def wants_of(
    exclude: Sequence[str],
    languages: Sequence[str],
    max_length: int | None,
    diversity: float,
    constrain: Constrain | None = None,
) -> Wants | None:
    """What a request asks for; None where it asks for nothing in particular."""
    excluded = frozenset(map(normalize_query, exclude))
    wants = Wants(excluded, frozenset(languages), max_length, diversity, constrain)
    return None if wants == Wants() else wants


def select(queries: Sequence[Candidate], wants: Wants) -> tuple[Candidate, ...]:
    """Those that are wanted, in their order."""
    kept: list[Candidate] = []
    said: list[frozenset[str]] = []
    for query in queries:
        if normalize_query(query.text) in wants.exclude:
            continue
        if wants.languages and (language_of(query.text) or "") not in wants.languages | {""}:
            continue
        if wants.max_length is not None and len(query.text) > wants.max_length:
            continue
        keys = frozenset(word.key for word in words(query.text))
        if wants.diversity and any(_shared(keys, other) > 1 - wants.diversity for other in said):
            continue
        kept.append(query)
        said.append(keys)
    return tuple(kept)


def _shared(a: frozenset[str], b: frozenset[str]) -> float:
    """Which share of all their words two queries have in common."""
    return len(a & b) / len(a | b) if a or b else 0.0
