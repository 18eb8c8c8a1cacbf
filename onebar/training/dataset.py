"""Training examples: a prompt and the query to generate for it, or `[REJECT]`.

Where they come from is not known here: `stream.examples` makes them from an event log.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np

    from onebar.tokens import PromptTokenizer


class Example(Struct, frozen=True):
    """What a model reads, and what it should write (Eq. 5): one JSON object a line in a file."""

    prompt: str
    target: str


class InvalidExampleError(ValueError):
    """A line of a file of examples is no example."""


def write_examples(examples: Iterable[Example], path: Path) -> int:
    """Write examples to a JSON lines file (`.gz` compresses); how many there were."""
    encoder = msgspec.json.Encoder()
    count = 0
    with _open(path, "wb") as file:
        for example in examples:
            file.write(encoder.encode(example) + b"\n")
            count += 1
    return count


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a file. Raises `InvalidExampleError` naming the line."""
    decoder = msgspec.json.Decoder(Example)
    with _open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InvalidExampleError(f"{path}, line {number}: {error}") from None


def _open(path: Path, mode: str) -> Any:
    return gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode)


class _Ragged:
    """Many short id lists in two flat arrays."""

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        import numpy as np

        flat: list[Any] = []
        ends = [0]
        for row in rows:
            flat.append(np.asarray(row, dtype=np.uint16))
            ends.append(ends[-1] + len(row))
        self.values = np.concatenate(flat) if flat else np.zeros(0, dtype=np.uint16)
        self.ends = np.asarray(ends, dtype=np.int64)

    def __getitem__(self, index: int) -> Any:
        return self.values[self.ends[index] : self.ends[index + 1]]

    @property
    def lengths(self) -> Any:
        return self.ends[1:] - self.ends[:-1]


class Batch(Struct, frozen=True):
    """One step's arrays, int64: `source` and `labels` of shape (batch, longest).

    `source` is padded with the pad id, `mask` is 1 on its real ids, `labels` are padded with
    -100, which the loss leaves out.
    """

    source: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


class Dataset:
    """Tokenised examples in memory: about 2 bytes a token."""

    CHUNK = 10_000

    def __init__(self, examples: Iterable[Example], tokenizer: PromptTokenizer) -> None:
        sources: list[list[int]] = []
        targets: list[list[int]] = []
        chunk: list[Example] = []

        def encode() -> None:
            sources.extend(tokenizer.encode([example.prompt for example in chunk]))
            targets.extend(tokenizer.encode_targets([example.target for example in chunk]))
            chunk.clear()

        for example in examples:
            chunk.append(example)
            if len(chunk) == self.CHUNK:
                encode()
        encode()
        self._sources = _Ragged(sources)
        self._targets = _Ragged(targets)

    def __len__(self) -> int:
        return len(self._sources.ends) - 1

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of full batches in an order fixed by (seed, epoch).

        Shuffled, then sorted by length inside windows of 64 batches, then the batches shuffled:
        little padding, yet no fixed company.
        """
        import numpy as np

        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        lengths = self._sources.lengths
        groups: list[Any] = []
        for start in range(0, len(order), size * 64):
            window = order[start : start + size * 64]
            window = window[np.argsort(lengths[window], kind="stable")]
            groups.extend(window[at : at + size] for at in range(0, len(window), size))
        if len(groups) > 1:
            groups = [group for group in groups if len(group) == size]
        for at in random.permutation(len(groups)):
            yield self._batch(groups[at])

    def _batch(self, rows: Any) -> Batch:
        import numpy as np

        from onebar.tokens import PAD_ID

        sources = [self._sources[row] for row in rows]
        targets = [self._targets[row] for row in rows]
        source = np.full((len(rows), max(map(len, sources))), PAD_ID, dtype=np.int64)
        labels = np.full((len(rows), max(map(len, targets))), -100, dtype=np.int64)
        mask = np.zeros_like(source)
        for at, (ids, wanted) in enumerate(zip(sources, targets, strict=True)):
            source[at, : len(ids)] = ids
            mask[at, : len(ids)] = 1
            labels[at, : len(wanted)] = wanted
        return Batch(source, mask, labels)
