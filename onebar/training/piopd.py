"""Stage 3, PIOPD: posterior-informed on-policy distillation (Eq. 11–16, Algorithm 1).

The teacher is the stage-2 model, frozen, and reads the prompt with the clicked query at a random
place in it. The student reads the plain prompt. A rollout is sampled from the student, both score
it, and the student moves towards the teacher. Teacher and clicked query are gone at serving time.

Both score it without dropout: between two dropout masks of the same model lies many times as much
divergence as between a teacher that has seen the click and a student that has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from msgspec import structs
from torch import Tensor

from onebar.training.batches import Batch, Pairs, pad_sources, picked, sft_examples
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import (
    IGNORED,
    cross_entropy,
    distillation,
    fgm_perturbation,
    negative_entropy,
    r_drop,
)
from onebar.training.models.architecture import (
    decode,
    embed,
    encode,
    frozen_copy,
    set_dropout,
    tensors,
    without_dropout,
)
from onebar.training.privileged import posterior_prompt, rollout, teacher_gain
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError

log = structlog.get_logger(__name__)


class PIOPDConfig(RunConfig, frozen=True, kw_only=True):
    """Stage 3. The paper: learning rate 1e-6, batches of 64, 500 steps, τ = 2; the weights are
    assumptions of ours, measured in docs/results.md. A weight of 0 leaves its term out."""

    steps: int = 500
    batch_size: int = 64
    learning_rate: float | None = 1e-5
    temperature: float = 2.0
    """τ: softens teacher and student."""
    sft_weight: float = 1.0
    forward_weight: float = 1.0
    """λ_F of KL(teacher ‖ student)."""
    reverse_weight: float = 1.0
    """λ_R of KL(student ‖ teacher)."""
    entropy_weight: float = 0.01
    """λ_E."""
    r_drop_weight: float = 1.0
    """λ_RD."""
    fgm_weight: float = 1.0
    """λ_FGM."""
    fgm_epsilon: float = 1.0
    """ε: how far an example's embeddings are moved."""
    dropout: float = 0.1
    """R-Drop compares two passes with this much dropout."""
    on_policy: bool = True
    """Distil on the student's rollouts; off, on the logged query (plain distillation)."""
    privileged: bool = True
    """The teacher sees the clicked query; off, it reads what the student reads."""
    least_gain: float = 0.1
    """The stage begins only where the teacher, shown the click, gives it first for this share more
    of valid's clicks than without, and for more than chance would; below 0 it begins anyway."""


class PIOPD:
    """The stage, for `onebar.training.loop.Loop`."""

    name = "piopd"

    def __init__(self, config: PIOPDConfig, start: Start) -> None:
        self._config = config
        self._tokenizer = start.tokenizer
        self._teacher = frozen_copy(start.model)
        set_dropout(start.model, config.dropout)
        examples = list(sft_examples(start.dataset, "train", start.prompt, searches=False))
        if not examples:
            raise EmptyDatasetError(f"{config.dataset} has no clicks to distil from")
        held = list(sft_examples(start.dataset, "valid", start.prompt, searches=False))
        if config.privileged and config.least_gain >= 0:
            gain = teacher_gain(self._teacher, start.tokenizer, held or examples, config.seed)
            log.info("teacher_gain", **structs.asdict(gain))
            gain.check(config.least_gain)
        held = picked(held, config.held_out_size)
        self.examples = Pairs(examples, start.tokenizer)
        self.held_out = Pairs(held, start.tokenizer, first=len(examples))
        self._all = [*examples, *held]
        """By the rows of both."""

    def step(self, model: Any, batch: Batch, backward: Backward) -> Metrics:
        config = self._config
        source, mask, labels = tensors(model, batch.source, batch.mask, batch.labels)
        metrics: Metrics = {}

        embedded = embed(model, source)
        if config.fgm_weight and embedded.requires_grad:
            embedded.retain_grad()
        states = encode(model, None, mask, embeddings=embedded)
        logits = decode(model, states, mask, labels)
        loss = config.sft_weight * cross_entropy(logits, labels)
        metrics["sft"] = loss.detach()

        if config.forward_weight or config.reverse_weight or config.entropy_weight:
            rolled = self._rollouts(model, source, mask) if config.on_policy else labels
            known = rolled != IGNORED
            with without_dropout(model):
                plain = encode(model, None, mask, embeddings=embedded) if config.dropout else states
                student = decode(model, plain, mask, rolled)
            if config.forward_weight or config.reverse_weight:
                distilled = distillation(
                    student,
                    self._teach(model, batch, rolled),
                    known,
                    temperature=config.temperature,
                    forward=config.forward_weight,
                    reverse=config.reverse_weight,
                )
                metrics["distill"] = distilled.detach()
                loss = loss + distilled
            if config.entropy_weight:
                spread = negative_entropy(student, known)
                metrics["entropy"] = -spread.detach()
                loss = loss + config.entropy_weight * spread
        if config.r_drop_weight:
            again = decode(model, encode(model, source, mask), mask, labels)
            apart = r_drop(logits, again, labels != IGNORED)
            metrics["r_drop"] = apart.detach()
            loss = loss + config.r_drop_weight * apart
        backward(loss)

        if config.fgm_weight and embedded.grad is not None:
            moved = embed(model, source) + fgm_perturbation(embedded.grad, config.fgm_epsilon)
            attacked = cross_entropy(
                decode(model, encode(model, None, mask, embeddings=moved), mask, labels), labels
            )
            metrics["fgm"] = attacked.detach()
            backward(config.fgm_weight * attacked)
        metrics["loss"] = loss.detach()
        return metrics

    def _rollouts(self, model: Any, source: Tensor, mask: Tensor) -> Tensor:
        with without_dropout(model):
            return rollout(model, self._tokenizer, source, mask, sample=True)

    @torch.no_grad()
    def _teach(self, model: Any, batch: Batch, rolled: Tensor) -> Tensor:
        """The teacher's logits (B, L, V) of the rollouts."""
        teacher = self._teacher.to(model.device)
        if not self._config.privileged:
            source, mask = tensors(model, batch.source, batch.mask)
        else:
            places = torch.rand(len(batch.rows)).tolist()
            prompts = [
                posterior_prompt(example.prompt, example.target, place)
                for example, place in zip(
                    (self._all[row] for row in batch.rows), places, strict=True
                )
            ]
            source, mask = self._encode(model, prompts)
        logits: Tensor = decode(teacher, encode(teacher, source, mask), mask, rolled)
        return logits

    def _encode(self, model: Any, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        ids = self._tokenizer.encode(prompts)
        return tensors(model, *pad_sources(ids, self._tokenizer.pad_id))


def train_piopd(config: PIOPDConfig) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    return train(config, lambda start: PIOPD(config, start))
