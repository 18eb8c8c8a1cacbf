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
        return int(self.mask.sum()) + int((self.labels != IGNORED).sum())


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


class HasTokens(Protocol):
    """Any batch."""

    @property
    def tokens(self) -> int: ...


BatchT = TypeVar("BatchT", bound=HasTokens)


class Pairs:
    """Tokenised examples in memory."""

    def __init__(self, examples: Iterable[Example], tokenizer: PromptTokenizer) -> None:
        sources: list[list[int]] = []
        targets: list[list[int]] = []
        for chunk in _chunks(examples):
            sources += tokenizer.encode([example.prompt for example in chunk])
            targets += tokenizer.encode_targets([example.target for example in chunk])
        self.sources = Ragged(sources, tokenizer.vocab_size)
        self.targets = Ragged(targets, tokenizer.vocab_size)
        self._pad = tokenizer.pad_id

    def __len__(self) -> int:
        return len(self.sources)

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch, in an order fixed by (seed, epoch)."""
        for rows in length_sorted(self.sources.lengths, size, seed=seed, epoch=epoch):
            source, mask = pad_sources([self.sources[row] for row in rows], self._pad)
            yield Batch(source, mask, pad_labels([self.targets[row] for row in rows]), rows)


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

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[ListBatch]:
        """One epoch, in an order fixed by (seed, epoch)."""
        import numpy as np

        for rows in length_sorted(self.sources.lengths, size, seed=seed, epoch=epoch):
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
            yield ListBatch(source, mask, flat.reshape(len(rows), most, -1), levels, counts)


Item = TypeVar("Item")


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def length_sorted(lengths: Any, size: int, *, seed: int, epoch: int) -> Iterator[Any]:
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
    for at in random.permutation(len(groups)):
        yield groups[at]


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
