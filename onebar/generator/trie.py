"""Token sequences that a decoder is held to, one added or banned without building the rest anew.

A trie needs a dictionary a node; this is the same as one sorted list, where what follows a prefix
is found by halving: 50 bytes a query instead of a kilobyte, and what is added moves a few pointers.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

TOKEN_BYTES = 3
"""Of one id in a key: keys order as their ids do."""
REMEMBERED = 4096
"""Prefixes whose followers are kept at hand: beams go through the same few again and again."""

Ids = tuple[int, ...]


class Trie:
    """Sequences of ids (each below 2**24), none of them empty. Safe to change while others ask."""

    def __init__(self, sequences: Iterable[Sequence[int]] = ()) -> None:
        self._keys = sorted({_key(sequence) for sequence in sequences if sequence})
        self._followers: dict[bytes, Ids] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, sequence: Sequence[int]) -> bool:
        key = _key(sequence)
        with self._lock:
            at = bisect_left(self._keys, key)
            return at < len(self._keys) and self._keys[at] == key

    def add(self, sequence: Sequence[int]) -> None:
        """Allow a sequence; an empty one is none."""
        key = _key(sequence)
        with self._lock:
            at = bisect_left(self._keys, key)
            if key and not (at < len(self._keys) and self._keys[at] == key):
                insort(self._keys, key)
                self._forget(key)

    def ban(self, sequence: Sequence[int]) -> None:
        """Allow it no more."""
        key = _key(sequence)
        with self._lock:
            at = bisect_left(self._keys, key)
            if at < len(self._keys) and self._keys[at] == key:
                del self._keys[at]
                self._forget(key)

    def followers(self, prefix: Sequence[int], end: int) -> Ids:
        """The ids that may follow a prefix, ascending; `end` among them where it is a sequence."""
        key = _key(prefix)
        with self._lock:
            known = self._followers.get(key)
            if known is None:
                known = self._find(key)
                if len(self._followers) >= REMEMBERED:
                    self._followers.clear()
                self._followers[key] = known
        return tuple(end if token < 0 else token for token in known)

    def _find(self, key: bytes) -> Ids:
        """The followers; -1 for the end of a sequence."""
        keys, size = self._keys, len(key)
        found: list[int] = []
        at = bisect_left(keys, key)
        if key and at < len(keys) and keys[at] == key:
            found.append(-1)
            at += 1
        while at < len(keys) and keys[at].startswith(key):
            token = int.from_bytes(keys[at][size : size + TOKEN_BYTES], "big")
            found.append(token)
            at = bisect_left(keys, key + (token + 1).to_bytes(TOKEN_BYTES, "big"), at)
        return tuple(found)

    def _forget(self, key: bytes) -> None:
        for size in range(0, len(key) + 1, TOKEN_BYTES):
            self._followers.pop(key[:size], None)


def _key(sequence: Sequence[int]) -> bytes:
    return b"".join(token.to_bytes(TOKEN_BYTES, "big") for token in sequence)
