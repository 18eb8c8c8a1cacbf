"""The repertoire: queries that may be generated for any video, and the nearest of them to a text.

They did well where they were shown, and are told by the store (`RepertoireFollower`); a rule about
one exact query adds it or bans it at once. Pure, but for a lock: engines read it in their threads.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import nsmallest
from itertools import islice
from typing import Literal

from onebar.evidence.words import words

Constrain = Literal["open", "prefer", "only"]
"""How strictly queries are to be of the repertoire: not at all; those of it first; no others."""
STRICTNESS: dict[Constrain, int] = {"open": 0, "prefer": 1, "only": 2}
CHANGES_KEPT = 10_000
"""Newest changes that whoever follows can take in one by one."""
LOOKED_AT = 2000
"""Entries of the index that are looked at for a text, those of its rarest words first."""


def stricter(one: Constrain, other: Constrain | None) -> Constrain:
    """What holds where both are asked for."""
    return one if other is None or STRICTNESS[other] <= STRICTNESS[one] else other


class Repertoire:
    """Normalised queries. `version` is the store's, `cut` the version that last took one out."""

    def __init__(self, queries: Iterable[str] = ()) -> None:
        self.version = self.cut = 0
        self._known: set[str] = set()
        self._by_rule: dict[str, bool] = {}
        self._number = 0
        self._changes: deque[tuple[str, bool]] = deque(maxlen=CHANGES_KEPT)
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._sizes = array("H")
        self._by_word: dict[str, array[int]] = {}
        for query in queries:
            self.add(query)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, query: object) -> bool:
        """Whether it may be generated."""
        said = self._by_rule.get(query) if isinstance(query, str) else None
        return query in self._known if said is None else said

    def known(self, query: str) -> bool:
        """Whether it did well, whatever any rule says."""
        return query in self._known

    def all_known(self) -> frozenset[str]:
        """Those that did well."""
        return frozenset(self._known)

    def add(self, query: str) -> None:
        """It did well."""
        self._change(query, lambda: self._known.add(query))

    def remove(self, query: str) -> None:
        """It does so no more."""
        self._change(query, lambda: self._known.discard(query))

    def decide(self, query: str, may: bool | None) -> None:
        """A rule says that this may be generated, or may not; None: no rule says so any more."""

        def change() -> None:
            if may is None:
                self._by_rule.pop(query, None)
            else:
                self._by_rule[query] = may

        self._change(query, change)

    def _change(self, query: str, change: Callable[[], object]) -> None:
        with self._lock:
            before = query in self
            change()
            after = query in self
            if after != before:
                self._number += 1
                self._changes.append((query, after))
        if after and not before:
            self._index(query)

    def queries(self) -> tuple[int, Collection[str]]:
        """All that may be generated, and the number of changes there have been."""
        with self._lock:
            ruled = [query for query, may in self._by_rule.items() if may]
            return self._number, {*(q for q in self._known if q in self), *ruled}

    def changes_since(self, number: int) -> tuple[int, Sequence[tuple[str, bool]]] | None:
        """The changes after so many, and how many there are; None where they are not all kept."""
        with self._lock:
            new = self._number - number
            if new > len(self._changes):
                return None
            return self._number, list(islice(self._changes, len(self._changes) - new, None))

    def near(self, texts: Iterable[str], most: int) -> tuple[str, ...]:
        """The queries that say the most of these texts and the least beside: by the words that they
        have in common over their own, the best first; equal ones by their text."""
        keys = {word.key for text in texts for word in words(text) if not word.function}
        having = sorted((len(self._by_word[key]), key) for key in keys & self._by_word.keys())
        found: Counter[int] = Counter()
        left = LOOKED_AT
        for size, key in having:
            found.update(self._by_word[key][:left])
            left -= size
            if left <= 0:
                break
        scored = (
            (-common / self._sizes[number], -common, self._texts[number])
            for number, common in found.items()
            if self._texts[number] in self
        )
        return tuple(dict.fromkeys(q for _, _, q in nsmallest(2 * most, scored)))[:most]

    def _index(self, query: str) -> None:
        if len(self._texts) > 2 * len(self._known) + CHANGES_KEPT:
            self._texts, self._sizes, self._by_word = [], array("H"), {}
            for each in self.queries()[1]:
                self._enter(each)
        else:
            self._enter(query)

    def _enter(self, query: str) -> None:
        keys = {word.key for word in words(query) if not word.function}
        for key in keys:
            self._by_word.setdefault(key, array("I")).append(len(self._texts))
        self._texts.append(query)
        self._sizes.append(len(keys) or 1)
