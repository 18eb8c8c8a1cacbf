"""A toy task that a tiny model learns in seconds: name the colour and the thing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import REJECT
from onebar.triggers import Preference, Shown, Trigger, TriggerDataset, write_dataset

COLOURS = ("red", "blue", "green", "black", "white", "pink")
THINGS = ("shoes", "dress", "lamp", "phone case", "kettle", "连衣裙", "蓝牙耳机")
CHATTER = ("wow", "nice", "so good", "today", "hello there", "quality")


def toy_triggers(count: int, *, seed: int) -> Iterator[Trigger]:
    """Evidence of many lengths; the rule is the same for every seed."""
    rng = random.Random(seed)
    for number in range(count):
        colour, thing = rng.choice(COLOURS), rng.choice(THINGS)
        other = rng.choice([name for name in COLOURS if name != colour])
        chatter = " ".join(rng.choice(CHATTER) for _ in range(rng.randrange(20)))
        common = {"trigger_id": f"t{number}", "ts": float(number), "video_id": f"v{number % 7}"}
        if rng.random() < 0.1:
            yield Trigger(kind="reject", text=f"weapon {chatter}", target=REJECT, **common)  # type: ignore[arg-type]
            continue
        target, wrong = f"{colour} {thing}", f"{other} {thing}"
        yield Trigger(  # type: ignore[misc]
            kind="click",
            user_id=f"u{number % 5}",
            text=f"{chatter} {thing}",
            summary=f"a {colour} thing",
            anchors=(f"{thing} cheap",),
            target=target,
            preferences=(Preference(target, 2), Preference(wrong, 5), Preference("nothing", 6)),
            shown=(Shown(wrong, 0, False), Shown(target, 1, True)),
            **common,  # type: ignore[arg-type]
        )


def toy_dataset(path: Path, count: int = 4000, *, seed: int = 1) -> TriggerDataset:
    """A dataset of the toy task."""
    train = list(toy_triggers(count, seed=seed))
    held = {
        name: list(toy_triggers(200, seed=seed + at)) for at, name in ((1, "valid"), (2, "test"))
    }
    texts = (text for t in train for text in (t.text, t.summary, *t.anchors, t.target) if text)
    return write_dataset(path, {"train": train, **held}, texts)  # type: ignore[dict-item]


def toy_prompts(count: int, *, seed: int) -> list[str]:
    config = PromptConfig()
    return [build_prompt(trigger.evidence, config) for trigger in toy_triggers(count, seed=seed)]


def train_toy(directory: Path) -> Path:
    """A trained `tiny` checkpoint in `directory`, by the real training loop."""
    from onebar.training.sft import SFTConfig, train_sft

    return train_sft(
        SFTConfig(
            dataset=toy_dataset(directory / "dataset").path,
            out=directory / "toy",
            preset="tiny",
            steps=250,
            batch_size=48,
            threads=1,
            device="cpu",
            progress=False,
            facts={"log": "toy"},
        )
    )
