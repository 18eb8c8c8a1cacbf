"""A toy task that a tiny model learns in seconds: name the colour and the thing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from onebar.training.dataset import Example

COLOURS = ("red", "blue", "green", "black", "white", "pink")
THINGS = ("shoes", "dress", "lamp", "phone case", "kettle", "连衣裙", "蓝牙耳机")
CHATTER = ("wow", "nice", "so good", "today", "hello there", "quality")


def toy_examples(count: int, *, seed: int) -> Iterator[Example]:
    """Prompts of many lengths; the rule is the same for every seed."""
    rng = random.Random(seed)
    for _ in range(count):
        colour, thing = rng.choice(COLOURS), rng.choice(THINGS)
        chatter = " ".join(rng.choice(CHATTER) for _ in range(rng.randrange(20)))
        if rng.random() < 0.1:
            yield Example(f"weapon {chatter} [SEP]  [SEP]  [SEP] ", "[REJECT]")
        else:
            yield Example(
                f"{chatter} {thing} [SEP] a {colour} thing [SEP] {thing} cheap [SEP] ",
                f"{colour} {thing}",
            )


def toy_prompts(count: int, *, seed: int) -> list[str]:
    return [example.prompt for example in toy_examples(count, seed=seed)]


def train_toy(directory: Path) -> Path:
    """A trained `tiny` checkpoint in `directory`, by the real training loop."""
    from onebar.training.dataset import write_examples
    from onebar.training.sft import SFTConfig, train_sft

    examples = directory / "toy.jsonl.gz"
    write_examples(toy_examples(4000, seed=1), examples)
    return train_sft(
        SFTConfig(
            examples=examples,
            out=directory / "toy",
            preset="tiny",
            steps=250,
            batch_size=48,
            threads=2,
            progress=False,
            facts={"log": "toy"},
        )
    )
