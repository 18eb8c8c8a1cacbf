"""What a constrained generation may say, and how an engine's tokens follow it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from onebar.evidence.text import REJECT
from onebar.evidence.tokens import PromptTokenizer
from onebar.generator.trie import Ids, Trie

AT_ONCE = 10_000
"""Queries read into tokens in one go."""


class Sayable(Protocol):
    """Queries that may be generated for any prompt: `onebar.gating.repertoire.Repertoire`."""

    def __contains__(self, query: object) -> bool: ...

    def queries(self) -> tuple[int, Collection[str]]:
        """All of them, and the number of changes there have been."""
        ...

    def changes_since(self, number: int) -> tuple[int, Sequence[tuple[str, bool]]] | None:
        """The changes after so many, each a query and whether it may be generated now; None where
        that is not known any more."""
        ...


class Within(Struct, frozen=True):
    """What may be generated for one prompt: `everywhere`, and `more` (normalised queries) for this
    one alone. `near` are those that an engine scores which can't hold its search to them. With
    `prefer` what is found outside comes along too.
    """

    everywhere: Sayable
    more: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    prefer: bool = False

    def holds(self, text: str) -> bool:
        """Whether this may be said."""
        return text == REJECT or text in self.more or text in self.everywhere


class Follower:
    """A trie of one tokenizer's ids that follows what is `Sayable`. Safe to call from threads."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._of: Sayable | None = None
        self._number = 0
        self._trie = Trie()

    def trie(self, everywhere: Sayable) -> Trie:
        """Its trie as of now. The first call takes some 15 µs a query."""
        with self._lock:
            changed = None if self._of is not everywhere else everywhere.changes_since(self._number)
            if changed is None:
                self._of = everywhere
                self._number, queries = everywhere.queries()
                self._trie = Trie(self.sequences([REJECT, *queries]))
            else:
                self._number, changes = changed
                texts = [query for query, _ in changes]
                for ids, (_, said) in zip(self.sequences(texts), changes, strict=True):
                    (self._trie.add if said else self._trie.ban)(ids)
            return self._trie

    def sequences(self, queries: Sequence[str]) -> list[Ids]:
        """The ids of queries; none of one that is too long to be generated."""
        most = self._tokenizer.max_target_tokens - 1
        return [
            tuple(ids) if len(ids) <= most else ()
            for at in range(0, len(queries), AT_ONCE)
            for ids in self._tokenizer.pieces(queries[at : at + AT_ONCE])
        ]
