"""The privileged prompt of PIOPD, what a model makes of it, and whether that is worth
distilling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor

from onebar.errors import OneBarError
from onebar.evidence.prompt import PART
from onebar.evidence.text import REJECT, SEP
from onebar.evidence.tokens import MASK, PromptTokenizer
from onebar.training.batches import Example, pad_sources
from onebar.training.losses import IGNORED
from onebar.training.models.architecture import encode, tensors
from onebar.triggers import EmptyDatasetError


@torch.no_grad()
def rollout(
    model: Any,
    tokenizer: PromptTokenizer,
    source: Tensor,
    mask: Tensor,
    *,
    sample: bool,
    each: int = 1,
    temperature: float = 1.0,
) -> Tensor:
    """`each` outputs for each prompt, sampled at `temperature` (> 0) or the likeliest token by
    token: ids (B · each, L), those of one prompt next to each other, -100 after the end token.
    source, mask (B, S); a prompt is encoded once."""
    most = tokenizer.max_target_tokens
    many = len(source) * each
    states = encode(model, source, mask).repeat_interleave(each, 0)
    mask = mask.repeat_interleave(each, 0)
    rolled = torch.full((many, most), IGNORED, device=source.device)
    cache = None
    newest = torch.full((many, 1), model.config.decoder_start_token_id).to(source)
    running = torch.ones(many, dtype=torch.bool, device=source.device)
    at = 0
    for at in range(most):
        out = model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=newest,
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        scores = out.logits[:, -1].float() / temperature
        newest = (
            torch.multinomial(scores.softmax(-1), 1) if sample else scores.argmax(-1, keepdim=True)
        )
        rolled[running, at] = newest[running, 0]
        running = running & (newest[:, 0] != tokenizer.eos_id)
        if not running.any():
            break
    return rolled[:, : at + 1]


class TeacherGainsNothingError(OneBarError, ValueError):
    """The teacher does no better for having seen the click: there is nothing to distil."""


class TeacherGain(Struct, frozen=True):
    """How often the teacher's likeliest output is the clicked query (0 to 1), with the click in its
    prompt and without, over `clicks` held-out clicks; `least` is the lower end of the difference's
    95 % interval (paired)."""

    clicks: int
    shown: float
    plain: float
    least: float

    @property
    def gain(self) -> float:
        return self.shown - self.plain

    def check(self, wanted: float) -> None:
        """Raises `TeacherGainsNothingError` below a gain of `wanted`, or of more than chance."""
        if self.least <= 0 or self.gain < wanted:
            raise TeacherGainsNothingError(
                f"shown the click, the teacher gives it first for {self.shown:.1%} of "
                f"{self.clicks} held-out clicks, without it for {self.plain:.1%}: a gain of "
                f"{self.gain:+.1%} (at least {self.least:+.1%}), and {wanted:.0%} is wanted. It "
                "can't copy what it is shown, so there is nothing to distil: train the earlier "
                "stages longer or with more decoder layers, or set piopd.least_gain lower"
            )


def teacher_gain(
    teacher: Any,
    tokenizer: PromptTokenizer,
    examples: Sequence[Example],
    seed: int = 0,
    most: int = 512,
) -> TeacherGain:
    """What the privileged prompt is worth to a teacher, on up to `most` of these clicks."""
    random = Random(seed)
    clicks = [example for example in examples if example.target != REJECT]
    if not clicks:
        raise EmptyDatasetError("there are no clicks to try the teacher on")
    chosen = random.sample(clicks, min(most, len(clicks)))
    targets = [tuple(ids) for ids in tokenizer.encode_targets([e.target for e in chosen])]
    shown = [posterior_prompt(e.prompt, e.target, random.random()) for e in chosen]
    hits = [_first(teacher, tokenizer, prompts, targets) for prompts in
            (shown, [example.prompt for example in chosen])]  # fmt: skip
    differences = torch.tensor(hits[0], dtype=torch.float64) - torch.tensor(hits[1]).double()
    error = float(differences.std(correction=0)) / math.sqrt(len(chosen))
    return TeacherGain(
        len(chosen),
        sum(hits[0]) / len(chosen),
        sum(hits[1]) / len(chosen),
        float(differences.mean()) - 1.96 * error,
    )


def _first(
    model: Any, tokenizer: PromptTokenizer, prompts: Sequence[str], targets: Sequence[Any]
) -> list[bool]:
    found: list[bool] = []
    for start in range(0, len(prompts), 64):
        ids = tokenizer.encode(prompts[start : start + 64])
        source, mask = tensors(model, *pad_sources(ids, tokenizer.pad_id))
        for row in rollout(model, tokenizer, source, mask, sample=False).tolist():
            said = tuple(token for token in row if token != IGNORED)
            found.append(said == targets[len(found)])
    return found


def posterior_prompt(prompt: str, query: str, place: float) -> str:
    """The prompt with the query, marked as the answer, as one more part of a field.

    `place` in [0, 1) chooses among all places before, between and after the parts of the four
    fields, so that the query can't be copied from a fixed one. The mark on either side of it is a
    special token, which no evidence can hold: unmarked, it would be one anchor among others.
    """
    fields = [[part for part in field.split(PART) if part] for field in prompt.split(f" {SEP} ")]
    at = int(place * sum(len(field) + 1 for field in fields))
    for field in fields:
        if at <= len(field):
            field.insert(at, f"{MASK} {query}{MASK}")
            break
        at -= len(field) + 1
    return f" {SEP} ".join(PART.join(field) for field in fields)


STRANGE = 0.5
"""Of the privileged prompts, those whose answer is that of another example: nothing but the mark
tells what is to be copied."""


def privileged_examples(
    examples: Iterable[Example], share: float, *, seed: int
) -> Iterator[Example]:
    """The examples, and behind a `share` of those with a query one whose prompt has an answer in
    it: its own, or an earlier example's. Deterministic by `seed`."""
    random = Random(f"{seed}:privileged")
    earlier: list[str] = []
    for example in examples:
        yield example
        if example.target == REJECT:
            continue
        if random.random() < share:
            strange = earlier and random.random() < STRANGE
            answer = earlier[int(random.random() * len(earlier))] if strange else example.target
            yield Example(posterior_prompt(example.prompt, answer, random.random()), answer)
        earlier = [*earlier[-63:], example.target]
