"""Stage 1, grounded supervised fine-tuning (Eq. 5): cross-entropy on the clicked query, or on
`[REJECT]` for triggers that must not carry one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebar.evidence.tokens import RESERVED
from onebar.training.batches import Batch, Pairs, picked, sft_examples
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import cross_entropy
from onebar.training.models.architecture import decode, encode, tensors
from onebar.training.models.copying import Pointing, prepare
from onebar.training.privileged import privileged_examples
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError


class SFTConfig(RunConfig, frozen=True, kw_only=True):
    """Stage 1. The paper: learning rate 1e-5, batches of 128, 6 epochs, from a pretrained BART;
    from scratch the preset's rate is right."""

    steps: int = 4000
    batch_size: int = 64
    searches: bool = True
    """Learn from queries typed after a video, too."""
    smoothing: float = 0.0
    """Label smoothing."""
    dropout: float | None = None
    """None keeps that of the preset or of `init`."""
    privileged: float = 0.0
    """Share of examples read once more with an answer in the prompt (`privileged_examples`)."""
    pointing: float = 0.0
    """Weight of the loss that teaches attention to find what is copied
    (`onebar.training.models.copying`)."""


class SFT:
    """The stage, for `onebar.training.loop.Loop`."""

    name = "sft"

    def __init__(self, config: SFTConfig, start: Start) -> None:
        from onebar.training.models.architecture import set_dropout

        self._smoothing = config.smoothing
        if config.dropout is not None:
            set_dropout(start.model, config.dropout)
        examples = sft_examples(start.dataset, "train", start.prompt, searches=config.searches)
        if config.privileged:
            examples = privileged_examples(examples, config.privileged, seed=config.seed)
        self._pointing: Pointing | None = None
        self._weight = config.pointing
        if config.pointing:
            self._pointing = Pointing(start.model)
            if start.parent is None:
                prepare(start.model)
        self.examples = Pairs(examples, start.tokenizer)
        if len(self.examples) == 0:
            raise EmptyDatasetError(
                f"{config.dataset} has nothing to learn from: its log has no clicks in the time "
                "of the train split"
            )
        held = sft_examples(start.dataset, "valid", start.prompt, searches=config.searches)
        self.held_out = Pairs(picked(held, config.held_out_size), start.tokenizer)

    def step(self, model: Any, batch: Batch, backward: Backward) -> Metrics:
        source, mask, labels = tensors(model, batch.source, batch.mask, batch.labels)
        if self._pointing is None:
            logits = decode(model, encode(model, source, mask), mask, labels)
            loss = cross_entropy(logits, labels, self._smoothing)
            backward(loss)
            return {"loss": loss.detach()}
        with self._pointing.watch():
            logits = decode(model, encode(model, source, mask), mask, labels)
        loss = cross_entropy(logits, labels, self._smoothing)
        looked = self._pointing.loss(source, mask, labels, len(RESERVED))
        backward(loss + self._weight * looked)
        return {"loss": loss.detach(), "pointing": looked.detach()}


def train_sft(config: SFTConfig) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    return train(config, lambda start: SFT(config, start))
