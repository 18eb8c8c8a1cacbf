"""Stage 3, PIOPD: posterior-informed on-policy distillation (Eq. 11–16, Algorithm 1).

The teacher is the stage-2 model, frozen, and reads the prompt with the clicked query at a random
place in it. The student reads the plain prompt. A rollout is sampled from the student, both score
it, and the student moves towards the teacher. Teacher and clicked query are gone at serving time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebar.training.batches import Batch, Pairs, pad_sources, privileged_prompt, sft_examples
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
)
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError


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
        self._examples = examples
        self._pairs = Pairs(examples, start.tokenizer)

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        return self._pairs.batches(size, seed=seed, epoch=epoch)

    def step(self, model: Any, batch: Batch, backward: Backward) -> Metrics:
        config = self._config
        source, mask, labels = tensors(model, batch.source, batch.mask, batch.labels)
        metrics: Metrics = {}

        embedded = embed(model, source)
        if config.fgm_weight:
            embedded.retain_grad()
        states = encode(model, None, mask, embeddings=embedded)
        logits = decode(model, states, mask, labels)
        loss = config.sft_weight * cross_entropy(logits, labels)
        metrics["sft"] = loss.detach()

        if config.forward_weight or config.reverse_weight or config.entropy_weight:
            rolled = self._rollouts(model, source, mask) if config.on_policy else labels
            known = rolled != IGNORED
            student = decode(model, states, mask, rolled) if config.on_policy else logits
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

    @torch.no_grad()
    def _rollouts(self, model: Any, source: Tensor, mask: Tensor) -> Tensor:
        """One sample of the student for each prompt: ids (B, L), -100 after the end token."""
        end = self._tokenizer.eos_id
        most = self._tokenizer.max_target_tokens
        model.eval()
        states = encode(model, source, mask)
        rolled = torch.full((len(source), most), IGNORED, device=source.device)
        cache = None
        newest = torch.full((len(source), 1), model.config.decoder_start_token_id).to(source)
        running = torch.ones(len(source), dtype=torch.bool, device=source.device)
        for at in range(most):
            out = model(
                encoder_outputs=(states,),
                attention_mask=mask,
                decoder_input_ids=newest,
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            newest = torch.multinomial(out.logits[:, -1].float().softmax(-1), 1)
            rolled[running, at] = newest[running, 0]
            running = running & (newest[:, 0] != end)
            if not running.any():
                break
        model.train()
        return rolled[:, : at + 1]

    @torch.no_grad()
    def _teach(self, model: Any, batch: Batch, rolled: Tensor) -> Tensor:
        """The teacher's logits (B, L, V) of the rollouts."""
        teacher = self._teacher.to(model.device)
        if not self._config.privileged:
            source, mask = tensors(model, batch.source, batch.mask)
        else:
            places = torch.rand(len(batch.rows)).tolist()
            prompts = [
                privileged_prompt(example.prompt, example.target, place)
                for example, place in zip(
                    (self._examples[row] for row in batch.rows), places, strict=True
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
