"""Stage 0, BART's denoising pre-training (Lewis et al. 2020) on the domain's own text: so that a
team without access to a hub still starts from a model that knows its videos' words.

A text's parts are permuted and spans of it hidden behind one mask each (lengths Poisson(3), 30 %
of the tokens); the model writes the text as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebar.evidence.prompt import PART
from onebar.training.batches import (
    Batch,
    Ragged,
    Rows,
    length_sorted,
    pad_labels,
    pad_sources,
    picked,
)
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import cross_entropy
from onebar.training.models.architecture import decode, encode, tensors
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError, TriggerDataset

if TYPE_CHECKING:
    import numpy as np

    from onebar.evidence.tokens import PromptTokenizer

SHORTEST = 4
"""Tokens below which a text has nothing to hide."""


class PretrainConfig(RunConfig, frozen=True, kw_only=True):
    """Stage 0. Texts are those of the dataset's train part."""

    steps: int = 2000
    batch_size: int = 64
    masked: float = 0.3
    """Share of the tokens that is hidden."""
    span: float = 3.0
    """Mean length of a hidden span."""
    permute: bool = True
    """Whether the parts of a text change places."""


class Texts:
    """Tokenised texts in memory, by their parts."""

    def __init__(
        self, texts: Iterable[str], tokenizer: PromptTokenizer, config: PretrainConfig
    ) -> None:
        import numpy as np

        self._config = config
        self._tokenizer = tokenizer
        parts: list[list[int]] = []
        counts: list[int] = []
        for text in texts:
            own = tokenizer.pieces(text.split(PART))
            if sum(map(len, own)) >= SHORTEST:
                parts += own
                counts.append(len(own))
        [self._bar] = tokenizer.pieces([PART.strip()])
        self._parts = Ragged(parts, tokenizer.vocab_size)
        self._starts = np.cumsum([0, *counts])
        self._lengths = self._parts.ends[self._starts[1:]] - self._parts.ends[self._starts[:-1]]

    def __len__(self) -> int:
        return len(self._lengths)

    def order(self, size: int, *, seed: int, epoch: int) -> Sequence[Rows]:
        return length_sorted(self._lengths, size, seed=seed, epoch=epoch)

    def batch(self, rows: Rows, *, seed: int, epoch: int) -> Batch:
        import numpy as np

        tokenizer, config = self._tokenizer, self._config
        most = tokenizer.max_source_tokens - 2
        sources, targets = [], []
        for row in rows:
            random = np.random.default_rng((seed, epoch, int(row)))
            own = [self._parts[at] for at in range(self._starts[row], self._starts[row + 1])]
            whole = self._join(own)[:most]
            if config.permute:
                own = [own[at] for at in random.permutation(len(own))]
            hidden = hide_spans(
                self._join(own)[:most],
                tokenizer.mask_id,
                share=config.masked,
                mean=config.span,
                random=random,
            )
            sources.append([tokenizer.bos_id, *hidden, tokenizer.eos_id])
            targets.append([*whole, tokenizer.eos_id])
        source, mask = pad_sources(sources, tokenizer.pad_id)
        return Batch(source, mask, pad_labels(targets), rows)

    def _join(self, parts: Sequence[Any]) -> list[int]:
        joined = [int(value) for value in parts[0]]
        for part in parts[1:]:
            joined += [*self._bar, *(int(value) for value in part)]
        return joined


class Pretrain:
    """The stage, for `onebar.training.loop.Loop`."""

    name = "pretrain"

    def __init__(self, config: PretrainConfig, start: Start) -> None:
        self.examples = Texts(start.dataset.texts(), start.tokenizer, config)
        if len(self.examples) == 0:
            raise EmptyDatasetError(f"{config.dataset} has no texts to learn from")
        held = picked(unseen_texts(start.dataset), config.held_out_size)
        self.held_out = Texts(held, start.tokenizer, config)

    def step(self, model: Any, batch: Batch, backward: Backward) -> Metrics:
        source, mask, labels = tensors(model, batch.source, batch.mask, batch.labels)
        loss = cross_entropy(decode(model, encode(model, source, mask), mask, labels), labels)
        backward(loss)
        return {"loss": loss.detach()}


def unseen_texts(dataset: TriggerDataset) -> list[str]:
    """The distinct texts of the valid part's videos that the train part does not have."""
    known = {hash(text) for text in dataset.texts()}
    found = (t for trigger in dataset.read("valid") for t in (trigger.text, trigger.summary) if t)
    return [text for text in dict.fromkeys(found) if hash(text) not in known]


def hide_spans(
    ids: Sequence[int], mask: int, *, share: float, mean: float, random: np.random.Generator
) -> list[int]:
    """The ids with spans replaced by one `mask` each, until `share` of them is hidden.

    Lengths are Poisson(`mean`); a span of length 0 only inserts a mask. At least one id is
    hidden, and one is left where there are two or more.
    """
    budget = min(max(1, round(share * len(ids))), max(1, len(ids) - 1))
    hidden = [False] * len(ids)
    inserted: set[int] = set()
    for _ in range(4 * len(ids)):
        if budget == 0:
            break
        length = min(int(random.poisson(mean)), budget)
        start = int(random.integers(0, len(ids)))
        if length == 0:
            inserted.add(start)
            continue
        for at in range(start, min(len(ids), start + length)):
            budget -= not hidden[at]
            hidden[at] = True
    kept: list[int] = []
    for at, value in enumerate(ids):
        if hidden[at]:
            if at == 0 or not hidden[at - 1]:
                kept.append(mask)
            continue
        if at in inserted:
            kept.append(mask)
        kept.append(int(value))
    return kept


def train_pretrain(config: PretrainConfig) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    return train(config, lambda start: Pretrain(config, start))
