"""From triggers to arrays: what each step of a stage reads.

Shapes: B triggers, S source ids, L target ids, n queries of a preference list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.training.losses import IGNORED
from onebar.triggers import Split, Trigger, TriggerDataset

if TYPE_CHECKING:
    import numpy as np

    from onebar.evidence.tokens import PromptTokenizer

CHUNK = 10_000
"""Texts tokenised at once."""
WINDOW = 64
"""Batches whose examples are sorted by length together."""
Item = TypeVar("Item")


class Example(Struct, frozen=True):
    """What a model reads, and what it should write (Eq. 5)."""

    prompt: str
    target: str


class PreferenceExample(Struct, frozen=True):
    """What a model reads, and queries from the most to the least wanted, with their levels and
    their exposures and clicks under the video."""

    prompt: str
    queries: tuple[str, ...]
    levels: tuple[int, ...]
    counts: tuple[tuple[int, int], ...]


def sft_examples(
    dataset: TriggerDataset, split: Split, prompt: PromptConfig, *, searches: bool
) -> Iterator[Example]:
    """Clicks and rejects of a split, and with `searches` what was typed after a video."""
    for trigger in dataset.read(split, ("click", "reject", *(("search",) if searches else ()))):
        yield Example(build_prompt(trigger.evidence, prompt), trigger.target)


def preference_examples(
    dataset: TriggerDataset, split: Split, prompt: PromptConfig
) -> Iterator[PreferenceExample]:
    """The preference lists of a split that have at least two queries."""
    for trigger in dataset.read(split, ("click",)):
        if len(trigger.preferences) > 1:
            yield _preferences(trigger, prompt)


def _preferences(trigger: Trigger, prompt: PromptConfig) -> PreferenceExample:
    return PreferenceExample(
        build_prompt(trigger.evidence, prompt),
        tuple(preference.query for preference in trigger.preferences),
        tuple(preference.level for preference in trigger.preferences),
        tuple((preference.exposures, preference.clicks) for preference in trigger.preferences),
    )


class Ragged:
    """Many short id lists in two flat arrays: 2 bytes an id where the vocabulary allows."""

    def __init__(self, rows: Iterable[Sequence[int]], vocab_size: int) -> None:
        import numpy as np

        dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        flat: list[Any] = []
        ends = [0]
        for row in rows:
            flat.append(np.asarray(row, dtype=dtype))
            ends.append(ends[-1] + len(row))
        self.values = np.concatenate(flat) if flat else np.zeros(0, dtype=dtype)
        self.ends = np.asarray(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Any:
        return self.values[self.ends[index] : self.ends[index + 1]]

    @property
    def lengths(self) -> Any:
        return self.ends[1:] - self.ends[:-1]


class Batch(Struct, frozen=True):
    """One step's arrays, int64.

    `source` (B, S) is padded with the pad id and `mask` is 1 on its real ids; `labels` (B, L)
    are padded with -100, which no loss counts. `rows` (B,) are the places of the examples in
    their dataset.
    """

    source: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]

    @property
    def tokens(self) -> int:
        """Real ids, of sources and targets."""
        return int(self.mask.sum()) + self.weight

    @property
    def weight(self) -> int:
        """Target ids: what the loss is a mean over."""
        return int((self.labels != IGNORED).sum())


class ListBatch(Struct, frozen=True):
    """One step of preference lists: `labels` (B, n, L), `levels` (B, n), 0 where a list ended, and
    `counts` (B, n, 2): exposures and clicks of each query under the video."""

    source: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    levels: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]

    @property
    def tokens(self) -> int:
        """Real ids, of sources and targets."""
        return int(self.mask.sum()) + int((self.labels != IGNORED).sum())

    @property
    def weight(self) -> int:
        """Lists: what the loss is a mean over."""
        return len(self.levels)


class AnyBatch(Protocol):
    """What the loop knows of a batch."""

    @property
    def tokens(self) -> int:
        """How much was read."""
        ...

    @property
    def weight(self) -> int:
        """How much its mean loss counts among those of other batches."""
        ...


BatchT = TypeVar("BatchT", bound=AnyBatch)
BatchT_co = TypeVar("BatchT_co", bound=AnyBatch, covariant=True)
Rows = Any
"""The places of examples: a numpy array of int64."""


class Examples(Protocol[BatchT_co]):
    """What a stage reads: examples by their place, of which batches are made when they are due."""

    def __len__(self) -> int: ...

    def order(self, size: int, *, seed: int, epoch: int) -> Sequence[Rows]:
        """The places of one epoch's batches of `size`, in an order fixed by (seed, epoch)."""
        ...

    def batch(self, rows: Rows, *, seed: int, epoch: int) -> BatchT_co:
        """The batch of these places. What is drawn for an example is fixed by (seed, epoch) and
        its place, whatever batch it is in."""
        ...


def share(rows: Rows, rank: int, processes: int) -> Rows:
    """What of a step's places one of several processes reads: together all of them, each once,
    unless there are fewer places than processes."""
    return rows[rank::processes] if len(rows) >= processes else rows[rank % len(rows) :][:1]


def picked(items: Iterable[Item], most: int) -> list[Item]:
    """At most so many of them, evenly from all; the same ones every time."""
    found = list(items)
    if len(found) <= most:
        return found
    return [found[at * len(found) // most] for at in range(most)]


class Pairs:
    """Tokenised examples in memory. `first` is what the first one's place is called in a batch."""

    def __init__(
        self, examples: Iterable[Example], tokenizer: PromptTokenizer, *, first: int = 0
    ) -> None:
        sources: list[list[int]] = []
        targets: list[list[int]] = []
        for chunk in _chunks(examples):
            sources += tokenizer.encode([example.prompt for example in chunk])
            targets += tokenizer.encode_targets([example.target for example in chunk])
        self.sources = Ragged(sources, tokenizer.vocab_size)
        self.targets = Ragged(targets, tokenizer.vocab_size)
        self._pad = tokenizer.pad_id
        self._first = first

    def __len__(self) -> int:
        return len(self.sources)

    def order(self, size: int, *, seed: int, epoch: int) -> Sequence[Rows]:
        return length_sorted(self.sources.lengths, size, seed=seed, epoch=epoch)

    def batch(self, rows: Rows, *, seed: int = 0, epoch: int = 0) -> Batch:
        source, mask = pad_sources([self.sources[row] for row in rows], self._pad)
        labels = pad_labels([self.targets[row] for row in rows])
        return Batch(source, mask, labels, rows + self._first)


class Lists:
    """Tokenised preference lists in memory."""

    def __init__(self, examples: Iterable[PreferenceExample], tokenizer: PromptTokenizer) -> None:
        import numpy as np

        sources: list[list[int]] = []
        queries: list[list[int]] = []
        levels: list[tuple[int, ...]] = []
        counts: list[tuple[tuple[int, int], ...]] = []
        for chunk in _chunks(examples):
            sources += tokenizer.encode([example.prompt for example in chunk])
            queries += tokenizer.encode_targets([q for example in chunk for q in example.queries])
            levels += [example.levels for example in chunk]
            counts += [example.counts for example in chunk]
        self.sources = Ragged(sources, tokenizer.vocab_size)
        self._queries = Ragged(queries, tokenizer.vocab_size)
        self._levels = levels
        self._counts = counts
        self._starts = np.cumsum([0, *map(len, levels)])
        self._pad = tokenizer.pad_id

    def __len__(self) -> int:
        return len(self.sources)

    def order(self, size: int, *, seed: int, epoch: int) -> Sequence[Rows]:
        return length_sorted(self.sources.lengths, size, seed=seed, epoch=epoch)

    def batch(self, rows: Rows, *, seed: int = 0, epoch: int = 0) -> ListBatch:
        import numpy as np

        source, mask = pad_sources([self.sources[row] for row in rows], self._pad)
        lists = [
            [self._queries[at] for at in range(self._starts[row], self._starts[row + 1])]
            for row in rows
        ]
        most = max(map(len, lists))
        empty = np.zeros(0, dtype=np.int64)
        flat = pad_labels([q for one in lists for q in (*one, *[empty] * (most - len(one)))])
        levels = np.zeros((len(rows), most), dtype=np.int64)
        for at, row in enumerate(rows):
            levels[at, : len(self._levels[row])] = self._levels[row]
        counts = np.zeros((len(rows), most, 2), dtype=np.int64)
        for at, row in enumerate(rows):
            counts[at, : len(self._counts[row])] = self._counts[row]
        return ListBatch(source, mask, flat.reshape(len(rows), most, -1), levels, counts)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def length_sorted(lengths: Any, size: int, *, seed: int, epoch: int) -> list[Rows]:
    """The places of one epoch's full batches, in an order fixed by (seed, epoch).

    Shuffled, then sorted by length inside windows of `WINDOW` batches, then the batches shuffled:
    little padding, yet no fixed company. Fewer examples than `size` make one short batch.
    """
    import numpy as np

    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    groups: list[Any] = []
    for start in range(0, len(order), size * WINDOW):
        window = order[start : start + size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        groups.extend(window[at : at + size] for at in range(0, len(window), size))
    if len(groups) > 1:
        groups = [group for group in groups if len(group) == size]
    return [groups[at] for at in random.permutation(len(groups))]


def pad_sources(rows: Sequence[Any], pad: int) -> tuple[Any, Any]:
    """Sources (B, S) padded with `pad`, and their mask (B, S)."""
    import numpy as np

    source = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    mask = np.zeros_like(source)
    for at, ids in enumerate(rows):
        source[at, : len(ids)] = ids
        mask[at, : len(ids)] = 1
    return source, mask


def pad_labels(rows: Sequence[Any]) -> Any:
    """Labels (B, L) padded with -100."""
    import numpy as np

    labels = np.full((len(rows), max(map(len, rows))), IGNORED, dtype=np.int64)
    for at, ids in enumerate(rows):
        labels[at, : len(ids)] = ids
    return labels
