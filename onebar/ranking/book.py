"""A book of known queries: what people searched and tapped so far, found again by its words.

A checkpoint's generator writes what it has learnt to write; the book has what was really asked.
Queries are kept by their bases (`onebar.ranking.habits`): what ten people each put in their own way
is one to be found, and is then put as whoever asks now would. A base is found by the words that it
shares with the evidence, rare ones first (TF-IDF), and those with words that the user often says
come first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.evidence.words import words
from onebar.process.files import replace_file
from onebar.ranking.habits import Habits, Style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 2
HABIT = 3.0
"""How much a word that a user says in every query counts beside one of the evidence."""
LEAST_HABIT = 0.1
"""Share of a user's queries from which a word is looked at at all."""
COMMON = 0.3
"""How much the log of a query's count adds to its score."""
LENGTH = 1.15
"""Exponent of a query's norm: above 1 short queries, which say nothing else, come first."""


class BookError(OneBarError, ValueError):
    """A file of queries that can't be used."""


class _File(Struct, frozen=True):
    """Query i has the base `bases[base_of[i]]`. `keys` are words; the bases with word k are
    `places[starts[k]:starts[k + 1]]`. `first` and `last` are the affixes that are habits."""

    format: int
    queries: tuple[str, ...]
    counts: bytes
    bases: tuple[str, ...]
    base_of: bytes
    keys: tuple[str, ...]
    starts: bytes
    places: bytes
    first: tuple[str, ...]
    last: tuple[str, ...]
    styles: tuple[tuple[Style, float], ...]


class Book:
    """Queries by their words. Immutable; safe in several threads."""

    def __init__(self, file: _File) -> None:
        """`load` and `of` make one."""
        import numpy as np

        self._file = file
        self.digest = hashlib.sha256(msgspec.msgpack.encode(file)).hexdigest()[:8]
        self.habits = Habits(file.first, file.last, dict(file.styles))
        self._columns = {key: at for at, key in enumerate(file.keys)}
        self._starts = np.frombuffer(file.starts, dtype="<i4").astype(np.intp)
        self._places = np.frombuffer(file.places, dtype="<i4").astype(np.intp)
        counts = np.frombuffer(file.counts, dtype="<i4")
        base_of = np.frombuffer(file.base_of, dtype="<i4")
        many = len(file.bases)
        has = self._starts[1:] - self._starts[:-1]
        self._idf = np.log1p(many / np.maximum(has, 1)) ** 2
        norm = np.zeros(many)
        np.add.at(norm, self._places, np.repeat(self._idf, has))
        of_base = np.bincount(base_of, counts, many)
        self._prior = (1 + COMMON * np.log1p(of_base)) / np.maximum(norm, 1e-9) ** (LENGTH / 2)
        self._asked = {query: int(count) for query, count in zip(file.queries, counts, strict=True)}
        self._bases = {
            base: int(count) for base, count in zip(file.bases, of_base.tolist(), strict=True)
        }

    def __len__(self) -> int:
        return len(self._file.queries)

    def count(self, query: str) -> int:
        """How often it was asked or tapped; 0 where the book does not have it."""
        return self._asked.get(query, 0)

    def base_count(self, base: str) -> int:
        """How often queries with this base were asked or tapped."""
        return self._bases.get(base, 0)

    def find(
        self, evidence: Mapping[str, float], habits: Mapping[str, float], most: int
    ) -> list[tuple[str, float]]:
        """At most `most` bases that share a word with the evidence, best first, with their scores
        (> 0).

        `evidence` has the weight of each word's key, `habits` the share of the user's queries that
        a word stands in. Equal scores are ordered by base.
        """
        import numpy as np

        scores: NDArray[np.float64] = np.zeros(len(self._file.bases))
        for key, weight in evidence.items():
            self._add(scores, key, weight)
        touched = np.flatnonzero(scores)
        if not len(touched):
            return []
        for key, share in habits.items():
            if share >= LEAST_HABIT and key not in evidence:
                self._add(scores, key, HABIT * share)
        found = scores[touched] * self._prior[touched]
        if len(found) > most:
            best = found >= np.partition(found, -most)[-most]
            touched, found = touched[best], found[best]
        # Bases are sorted, so that their places order equals.
        order = np.lexsort((touched, -found))[:most]
        bases = self._file.bases
        return [
            (bases[at], score)
            for at, score in zip(touched[order].tolist(), found[order].tolist(), strict=True)
        ]

    def _add(self, scores: NDArray[np.float64], key: str, weight: float) -> None:
        at = self._columns.get(key)
        if at is not None:
            scores[self._places[self._starts[at] : self._starts[at + 1]]] += weight * self._idf[at]

    @classmethod
    def of(cls, counts: Mapping[str, int], habits: Habits | None = None) -> Book:
        """The book of these queries and how often each was asked; their bases are told by
        `habits`, without which each is its own."""
        import numpy as np

        habits = habits or Habits((), ())
        queries = sorted(counts)
        own = [habits.apart(query)[0] for query in queries]
        bases = sorted(set(own))
        at_base = {base: at for at, base in enumerate(bases)}
        has: dict[str, list[int]] = {}
        for at, base in enumerate(bases):
            for key in sorted(keys_of(base)):
                has.setdefault(key, []).append(at)
        keys = sorted(has)
        starts = np.cumsum([0, *(len(has[key]) for key in keys)])
        places = [at for key in keys for at in has[key]]
        return cls(
            _File(
                FORMAT,
                tuple(queries),
                np.array([counts[query] for query in queries], dtype="<i4").tobytes(),
                tuple(bases),
                np.array([at_base[base] for base in own], dtype="<i4").tobytes(),
                tuple(keys),
                starts.astype("<i4").tobytes(),
                np.array(places, dtype="<i4").tobytes(),
                tuple(sorted(habits.first)),
                tuple(sorted(habits.last)),
                tuple(sorted(habits.shares.items())),
            )
        )

    def joined(self, other: Book) -> Book:
        """The queries of both, their counts added."""
        counts = Counter(self._asked) + Counter(other._asked)
        many = sum(counts.values())
        share = sum(other._asked.values()) / many if many else 0.0
        return Book.of(counts, self.habits.joined(other.habits, share))

    @classmethod
    def load(cls, path: Path) -> Book:
        """Raises `BookError`."""
        import numpy as np

        try:
            file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
            starts = np.frombuffer(file.starts, dtype="<i4")
            places = np.frombuffer(file.places, dtype="<i4")
            base_of = np.frombuffer(file.base_of, dtype="<i4")
            counts = len(file.counts) // 4
        except (OSError, ValueError) as error:
            raise BookError(f"{path} holds no queries: {error}") from error
        if file.format != FORMAT:
            raise BookError(f"{path} has format {file.format}, this program reads {FORMAT}")
        many = len(file.bases)
        sound = (
            counts == len(base_of) == len(file.queries)
            and (not len(base_of) or 0 <= int(base_of.min()) <= int(base_of.max()) < many)
            and len(starts) == len(file.keys) + 1
            and starts[0] == 0
            and starts[-1] == len(places)
            and bool((starts[1:] >= starts[:-1]).all())
            and (not len(places) or 0 <= int(places.min()) <= int(places.max()) < many)
        )
        if not sound:
            raise BookError(f"{path} is damaged: make it again with `onebar train clicks`")
        return cls(file)

    def save(self, path: Path) -> None:
        """Write it in one rename."""
        replace_file(path, msgspec.msgpack.encode(self._file))


def keys_of(query: str) -> frozenset[str]:
    """The keys of the words that say something; of all where none does."""
    found = words(query)
    said = frozenset(word.key for word in found if not word.function)
    return said or frozenset(word.key for word in found)
