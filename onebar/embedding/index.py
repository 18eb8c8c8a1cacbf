"""An index of vectors by name, a video's mostly: HNSW (Malkov, Yashunin 2018) by usearch.

Vectors come and go one by one while it is searched. A snapshot is a directory that appears whole:

index.json          the card: the space, how many, sizes of the other files
vectors.usearch     the graph and the vectors
ids.json            name by key
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from onebar.embedding.encoder import Vectors
from onebar.errors import OneBarError
from onebar.process.files import occupied, publish, staging

CARD = "index.json"
VECTORS = "vectors.usearch"
IDS = "ids.json"
FORMAT = 1
EXPANSION_ADD = 128
EXPANSION_SEARCH = 96


class VectorIndexError(OneBarError, ValueError):
    """An index that can't be used. The text says why and what to do."""


class IndexCorruptError(VectorIndexError):
    """A file of a snapshot is missing, cut short or of another format."""


class IndexMismatchError(VectorIndexError):
    """Vectors of another space or width than the index has."""


class IndexCard(Struct, frozen=True, kw_only=True):
    """What a snapshot says of itself."""

    format: int = FORMAT
    space: str
    """Name of the encoder the vectors came from."""
    dim: int
    count: int
    bytes: dict[str, int]
    """Size of each other file."""
    offsets: dict[str, int] = {}
    """By `topic/partition`, the first record of the log that is not in it."""


class Near(Struct, frozen=True):
    """A name and how near its vector is: a cosine, -1 to 1."""

    name: str
    similarity: float


class VectorIndex:
    """Vectors of one space by name.

    Adding a name that is there replaces its vector. Searches may run while others are added, from
    several threads; adding and removing are one thread's.
    """

    def __init__(self, space: str, dim: int) -> None:
        self.space = space
        self.dim = dim
        self.offsets: dict[str, int] = {}
        """Of the log, where the snapshot it was loaded from ends."""
        self._graph = _graph(dim)
        self._ids: dict[int, str] = {}
        self._keys: dict[str, int] = {}
        self._next = itertools.count()

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def put(self, names: Sequence[str], vectors: Vectors) -> None:
        """Add these with their vectors (len(names), dim), of unit length or zero: what has no
        vector is near nothing and is left out. Raises `IndexMismatchError`."""
        if vectors.shape != (len(names), self.dim):
            raise IndexMismatchError(
                f"expected {len(names)} vectors of width {self.dim}, got {vectors.shape}"
            )
        newest = {name: at for at, name in enumerate(names)}
        for name in newest:
            self.remove(name)
        known = [(v, at) for v, at in newest.items() if vectors[at].any()]
        if not known:
            return
        keys = [next(self._next) for _ in known]
        rows = np.ascontiguousarray(vectors[[at for _, at in known]])
        self._graph.add(np.array(keys, dtype=np.uint64), rows, threads=1)
        for key, (name, _) in zip(keys, known, strict=True):
            self._keys[name] = key
            self._ids[key] = name

    def remove(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        key = self._keys.pop(name, None)
        if key is None:
            return False
        del self._ids[key]
        self._graph.remove(key)
        return True

    def nearest(self, vectors: Vectors, k: int) -> list[list[Near]]:
        """For each of the vectors (n, dim) the nearest, at most `k`, nearest first; none for a
        zero vector. Raises `IndexMismatchError`."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise IndexMismatchError(
                f"expected vectors of width {self.dim}, got {vectors.shape}: they are of another "
                "embedder"
            )
        found: list[list[Near]] = [[] for _ in range(len(vectors))]
        if not self._ids or not len(vectors):
            return found
        matches = self._graph.search(np.ascontiguousarray(vectors), k, threads=1)
        keys = np.atleast_2d(matches.keys)
        distances = np.atleast_2d(matches.distances)
        counts = getattr(matches, "counts", np.full(len(vectors), len(matches)))
        for row, count in enumerate(counts):
            if not vectors[row].any():
                continue
            for key, distance in zip(keys[row, :count], distances[row, :count], strict=True):
                name = self._ids.get(int(key))
                if name is not None:
                    found[row].append(Near(name, float(1.0 - distance)))
        return found

    def vectors(self, names: Sequence[str]) -> Vectors:
        """The vectors (len(names), dim) of these; zero where one is not here."""
        found = np.zeros((len(names), self.dim), dtype=np.float32)
        for at, name in enumerate(names):
            key = self._keys.get(name)
            if key is not None:
                found[at] = self._graph.get(key, dtype="f32")
        return found

    def save(self, out: Path, offsets: Mapping[str, int] | None = None) -> None:
        """Write a snapshot to `out`, whole or not at all, in place of an older one, with what of
        the log is in it. Raises `VectorIndexError` where something else is there."""
        if occupied(out, CARD):
            raise VectorIndexError(f"{out} exists and is no index: choose another directory")
        with staging(out) as staged:
            self._graph.save(str(staged / VECTORS))
            (staged / IDS).write_bytes(msgspec.json.encode([[k, v] for k, v in self._ids.items()]))
            card = IndexCard(
                space=self.space,
                dim=self.dim,
                count=len(self),
                bytes={name: (staged / name).stat().st_size for name in (VECTORS, IDS)},
                offsets=dict(offsets or {}),
            )
            (staged / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2))
            publish(staged, out)

    @classmethod
    def load(cls, path: Path) -> VectorIndex:
        """The index of a snapshot. Raises `IndexCorruptError`."""
        try:
            card = msgspec.json.decode((path / CARD).read_bytes(), type=IndexCard)
            if card.format != FORMAT:
                raise IndexCorruptError(
                    f"{path} has format {card.format}, this program reads {FORMAT}: build it again"
                )
            for name, size in card.bytes.items():
                found = (path / name).stat().st_size
                if found != size:
                    raise IndexCorruptError(
                        f"{path / name} has {found:,} bytes, its card says {size:,}: build it again"
                    )
            index = cls(card.space, card.dim)
            index._graph.load(str(path / VECTORS))
            pairs = msgspec.json.decode((path / IDS).read_bytes(), type=list[tuple[int, str]])
        except (OSError, RuntimeError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IndexCorruptError(f"{path} can't be read as an index: {error}") from error
        index._fill(pairs)
        index.offsets = card.offsets
        if len(index) != card.count or len(index._graph) != card.count:
            raise IndexCorruptError(f"{path} is not what its card says: build it again")
        return index

    def _fill(self, pairs: Iterable[tuple[int, str]]) -> None:
        self._ids = dict(pairs)
        self._keys = {name: key for key, name in self._ids.items()}
        self._next = itertools.count(max(self._ids, default=-1) + 1)


def _graph(dim: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=dim,
        metric="cos",
        dtype="f16",
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )
