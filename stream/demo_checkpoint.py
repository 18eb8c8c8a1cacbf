"""How the shipped demo checkpoint is made: from the simulator's events alone, in one call."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import structlog

from onebar.checkpoint import SHIPPED, annotate, open_checkpoint
from onebar.engines import load_engine
from onebar.training.dataset import Example, write_examples
from onebar.training.evaluate import Quality, evaluate
from onebar.training.sft import SFTConfig, train_sft
from stream.examples import examples
from stream.simulator import Lang, SimulatorConfig, simulate

log = structlog.get_logger(__name__)

LANGUAGES: tuple[Lang, ...] = ("en", "zh")
TRAIN_SEED = 1
HELD_OUT_SEED = 1_000_003
BATCH_SIZE = 32


def simulated_examples(
    lang: Lang, *, seed: int, events: int, searches: bool = False
) -> Iterator[Example]:
    """The examples of one simulated log, its events read as any other log's would be."""
    log = simulate(SimulatorConfig(seed=seed, lang=lang, events=events))
    return examples(log, searches=searches)


def build_demo_checkpoint(
    out: Path = SHIPPED,
    *,
    minutes: float = 30.0,
    events: int = 1_000_000,
    threads: int = 2,
    seed: int = TRAIN_SEED,
    held_out_events: int = 60_000,
) -> Path:
    """Simulate a log in each language, train the `demo` preset on both, measure it on logs with
    a seed it has not seen, and write the checkpoint to `out`.

    Interrupted, it goes on where it stopped. `minutes` limits the training alone. What comes out
    depends on how fast the machine is unless the time is ample; the card says how far it got.
    """
    work = out.parent / f".{out.name}.examples"
    work.mkdir(parents=True, exist_ok=True)
    path = work / "train.jsonl"
    if not path.exists():
        logs = [
            simulated_examples(lang, seed=seed, events=events, searches=True) for lang in LANGUAGES
        ]
        mixed = (
            example for group in zip_longest(*logs) for example in group if example is not None
        )
        count = write_examples(mixed, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
        log.info("examples_written", examples=count, path=str(path))
    facts: dict[str, Any] = {
        "log": {
            "source": "stream.simulator",
            "languages": list(LANGUAGES),
            "seed": seed,
            "events_per_language": events,
        }
    }
    train_sft(
        SFTConfig(
            examples=path,
            out=out,
            preset="demo",
            steps=1_000_000,
            minutes=minutes,
            batch_size=BATCH_SIZE,
            threads=threads,
            seed=seed,
            weights=False,
            facts=facts,
        )
    )
    measured = measure(out, events=held_out_events)
    annotate(
        out,
        {
            "held_out": {
                "seed": HELD_OUT_SEED,
                "events_per_language": held_out_events,
                **{lang: quality.facts() for lang, quality in measured.items()},
            }
        },
    )
    shutil.rmtree(work)
    return out


def measure(path: Path, *, events: int) -> dict[str, Quality]:
    """The quality of a checkpoint on the later half of held-out logs, by language.

    Another seed has other videos, other users and other trends; words and products are the same.
    Only clicks count, and flagged videos.
    """
    engine = load_engine(open_checkpoint(path), workers=2)
    try:
        measured: dict[str, Quality] = {}
        for lang in LANGUAGES:
            found = list(simulated_examples(lang, seed=HELD_OUT_SEED, events=events))
            measured[lang] = evaluate(engine, found[len(found) // 2 :])
        return measured
    finally:
        engine.close()
