"""List-wise reinforcement: lists of queries from the model as it is, each rewarded as it stands in
a bar, and the model moved towards the better ones (GRPO's groups, Shao et al. 2024; advantages per
position and per list as in AIGQ).

What rewards them is handed in (`Reward`); nothing of it is in the checkpoint or runs in serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from onebar.evidence.prompt import build_prompt
from onebar.records import Candidate
from onebar.training.batches import Batch, Example, Pairs, picked
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import IGNORED, cross_entropy
from onebar.training.models.architecture import (
    decode,
    encode,
    frozen_copy,
    set_dropout,
    tensors,
    without_dropout,
)
from onebar.training.privileged import rollout
from onebar.training.reinforce.advantages import advantages, apart, policy_loss
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError, Trigger


class Rewarded(Protocol):
    """What lists of one prompt are worth. Higher is better; only what compares within a prompt
    counts."""

    @property
    def queries(self) -> Sequence[Sequence[float]]:
        """Each query of each list."""
        ...

    @property
    def lists(self) -> Sequence[float]:
        """Each list as a whole."""
        ...

    @property
    def allowed(self) -> float:
        """Share of the queries that might be shown, 0 to 1."""
        ...


class Reward(Protocol):
    """Tells what lists of queries are worth under one impression."""

    @property
    def name(self) -> str:
        """Names it: two runs with another reward are other runs."""
        ...

    def __call__(self, trigger: Trigger, lists: Sequence[Sequence[Candidate]]) -> Rewarded:
        """`lists` have one length; their queries are the likeliest first, an empty text where the
        model came to no end. It may read the trigger's evidence, never its outcome. Pure."""
        ...


class ReinforceConfig(RunConfig, frozen=True, kw_only=True):
    """The stage's settings."""

    steps: int = 100
    batch_size: int = 8
    """Prompts of a step; there are `lists` · `places` rollouts of each."""
    learning_rate: float | None = 2e-5
    lists: int = 4
    """Lists of a prompt, which are compared with each other: 2 at least."""
    places: int = 4
    """Queries of a list."""
    temperature: float = 1.0
    """Of the policy that writes and is moved: softmax(logits / temperature). Much of what is
    sampled at 1 no beam would show, so much of the reward is there for writing less that is
    broken; below it what is compared is what would be shown."""
    list_weight: float = 0.5
    """What the advantage of a list counts beside that of a query."""
    kl_weight: float = 0.05
    """Of the distance to the model that it began with."""
    sft_weight: float = 0.1
    """Of −log π of the clicked query, which keeps the model on what people ask."""
    most: int = 20_000
    """Clicks of the train part that are learned from, evenly from all."""
    validation_batches: int = 8
    reward: str = ""
    """The name of what rewards; set by the stage."""


class Reinforce:
    """The stage, for `onebar.training.loop.Loop`. Its loss, which tells the best step on what is
    kept back, is the mean reward of a list, less than 0."""

    name = "reinforce"

    def __init__(self, config: ReinforceConfig, start: Start, reward: Reward) -> None:
        if config.lists < 2 or config.places < 1:
            raise ValueError("lists must be 2 at least, to compare, and places 1")
        if config.temperature <= 0:
            raise ValueError("the temperature must be above 0")
        self._config = config
        self._reward = reward
        self._tokenizer = start.tokenizer
        self._reference = frozen_copy(start.model)
        set_dropout(start.model, 0.0)
        learnt = picked(start.dataset.read("train", ("click",)), config.most)
        if not learnt:
            raise EmptyDatasetError(f"{config.dataset} has no clicks to write queries for")
        held = picked(start.dataset.read("valid", ("click",)), config.held_out_size)
        self._triggers = [*learnt, *held]

        def examples(triggers: Sequence[Trigger]) -> list[Example]:
            return [
                Example(build_prompt(one.evidence, start.prompt), one.target) for one in triggers
            ]

        self.examples = Pairs(examples(learnt), start.tokenizer)
        self.held_out = Pairs(examples(held), start.tokenizer, first=len(learnt))

    def step(self, model: Any, batch: Batch, backward: Backward) -> Metrics:
        config = self._config
        each = config.lists * config.places
        source, mask, labels = tensors(model, batch.source, batch.mask, batch.labels)
        masks = mask.repeat_interleave(each, 0)
        with without_dropout(model):
            with torch.no_grad():
                rolled = rollout(
                    model, self._tokenizer, source, mask,
                    sample=True, each=each, temperature=config.temperature,
                )  # fmt: skip
            states = encode(model, source, mask)
            logits = decode(model, states.repeat_interleave(each, 0), masks, rolled)
        known = rolled != IGNORED
        log_probs = token_log_probs(logits / config.temperature, rolled)
        with torch.no_grad():
            reference = self._reference.to(model.device)
            stood = encode(reference, source, mask).repeat_interleave(each, 0)
            before = decode(reference, stood, masks, rolled) / config.temperature
            before = token_log_probs(before, rolled)
            sums = token_log_probs(logits, rolled).sum(1)
        queries, lists, order, allowed = self._rewarded(batch.rows.tolist(), rolled, sums.tolist())
        advantage = torch.zeros_like(order, dtype=log_probs.dtype)
        found = advantages(queries, lists, config.list_weight).to(log_probs)
        advantage[order] = found.flatten()
        policy = policy_loss(log_probs, advantage, known)
        distance = apart(log_probs, before, known)
        loss = policy + config.kl_weight * distance
        metrics: Metrics = {
            "loss": -lists.mean().to(loss),
            "policy": policy.detach(),
            "kl": distance.detach(),
            "query_reward": queries.mean().to(loss),
            "allowed": torch.tensor(allowed).to(loss),
        }
        if config.sft_weight:
            clicked = cross_entropy(decode(model, states, mask, labels), labels)
            metrics["sft"] = clicked.detach()
            loss = loss + config.sft_weight * clicked
        backward(loss)
        return metrics

    def _rewarded(
        self, rows: Sequence[int], rolled: Tensor, sums: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """The rewards (B, n, k) and (B, n) of the rollouts, laid out as lists with the likeliest
        by `sums` (N,) first; which rollout stands at each place, (N,); and the share that may be
        shown."""
        config = self._config
        each = config.lists * config.places
        ids = rolled.tolist()
        texts = [self._text(row) for row in ids]
        queries: list[Sequence[Sequence[float]]] = []
        lists: list[Sequence[float]] = []
        order: list[int] = []
        allowed = 0.0
        for at, row in enumerate(rows):
            parts = []
            for start in range(at * each, (at + 1) * each, config.places):
                part = sorted(range(start, start + config.places), key=lambda i: (-sums[i], i))
                order += part
                parts.append([Candidate(texts[i], sums[i]) for i in part])
            found = self._reward(self._triggers[row], parts)
            queries.append(found.queries)
            lists.append(found.lists)
            allowed += found.allowed / len(rows)
        return (
            torch.tensor(queries, dtype=torch.float64),
            torch.tensor(lists, dtype=torch.float64),
            torch.tensor(order, device=rolled.device),
            allowed,
        )

    def _text(self, row: Sequence[int]) -> str:
        """What a rollout says; nothing where it has no end."""
        said = [token for token in row if token != IGNORED]
        return self._tokenizer.decode(said) if self._tokenizer.eos_id in said else ""


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log π of each token, 0 where there is none: (N, L, V), (N, L) → (N, L)."""
    taken = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -taken.view_as(labels)


def train_reinforce(config: ReinforceConfig, reward: Reward) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    from msgspec.structs import replace

    config = replace(config, reward=reward.name)
    return train(config, lambda start: Reinforce(config, start, reward))
