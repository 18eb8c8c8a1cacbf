"""How the shipped demo checkpoint is made: from the simulator's events alone, in one call.

Logs of many small worlds in each language, all in one archive, a dataset of it, all stages;
measured on logs of a world it has not seen. Many worlds, for what they have in common is how a
query follows from evidence: with one, a model learns that world's queries by heart.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import structlog

from onebar.generator.checkpoint import SHIPPED, annotate, open_checkpoint
from onebar.triggers import TriggerDataset, open_dataset
from stream.archive.reader import open_archive
from stream.archive.writer import ArchiveWriter
from stream.dataset.build import build_dataset
from stream.dataset.config import DatasetConfig
from stream.dataset.tables import COLUMNS
from stream.events import Event, encode
from stream.simulator import Lang, SimulatorConfig, simulate

log = structlog.get_logger(__name__)

LANGUAGES: tuple[Lang, ...] = ("en", "zh")
TRAIN_SEEDS = tuple(range(1, 9))
HELD_OUT_SEED = 1_000_003
PRESET = "demo"


def simulated_events(seeds: Sequence[int], events: int) -> Iterator[Event]:
    """One feed of several worlds that speaks all languages: `events` of each, by time."""
    logs = (
        simulate(SimulatorConfig(seed=seed, lang=lang, events=events))
        for seed in seeds
        for lang in LANGUAGES
    )
    return heapq.merge(*logs, key=attrgetter("ts"))


def simulated_dataset(
    work: Path, *, seeds: Sequence[int], events: int, config: DatasetConfig
) -> TriggerDataset:
    """A dataset of simulated logs, by way of an archive, as anybody's would be made; what is
    there already is not made again."""
    out = work / "dataset"
    if not out.exists():
        archive = work / "archive"
        with ArchiveWriter(archive) as writer:
            for number, event in enumerate(simulated_events(seeds, events)):
                writer.add_parsed(event.topic, 0, number, event.ts, event, encode(event), "")
                if writer.pending >= 200_000:
                    writer.flush()
        opened = open_archive(archive)
        files = {name: opened.table_glob(name) for name in COLUMNS}
        source = {
            "simulator_seeds": list(seeds),
            "languages": list(LANGUAGES),
            "events": len(seeds) * len(LANGUAGES) * events,
        }
        build_dataset(files, out, config, source=source)
    return open_dataset(out)


def build_demo_checkpoint(
    out: Path = SHIPPED,
    *,
    work: Path,
    seeds: Sequence[int] = TRAIN_SEEDS,
    events: int = 62_500,
    held_out_events: int = 60_000,
    changes: dict[str, dict[str, Any]] | None = None,
    measure: Callable[[Path, TriggerDataset], dict[str, Any]] | None = None,
) -> Path:
    """Train the `demo` preset's recipe on simulated logs of `events` each, one for every world (of
    `seeds`) in every language, and write what serves of the last stage (no float weights) to `out`.

    Everything lies in `work` until the end, so an interrupted call goes on. `measure` gives the
    facts that the card says of how good each stage is on a log of a seed it has not seen;
    `changes` are settings by stage, as for `train_all`.
    """
    from onebar.training.models.export import EXACT_WITHIN, export_again
    from onebar.training.models.outputs import outputs_of
    from onebar.training.recipe import RECIPES, train_all

    dataset = simulated_dataset(work / "train", seeds=seeds, events=events, config=DatasetConfig())
    common = {"dataset": str(dataset.path), "device": "cpu"}
    last = train_all(work / "stages", common, preset=PRESET, changes=changes)
    held_out = simulated_dataset(
        work / "held-out",
        seeds=(HELD_OUT_SEED,),
        events=held_out_events,
        # The first half of the log is where anchors and histories come from.
        config=DatasetConfig(valid=0.0, test=0.5, searches=False),
    )
    outputs = outputs_of(dataset, open_checkpoint(last).tokenizer())
    export_again(last, out, outputs=outputs, exact_within=EXACT_WITHIN, weights=False)
    if measure is not None:
        answering = [stage for stage in RECIPES[PRESET] if stage != "pretrain"]
        paths = {stage: work / "stages" / stage for stage in answering} | {last.name: out}
        stages = {stage: measure(path, held_out) for stage, path in paths.items()}
        annotate(out, {"held_out": {"seed": HELD_OUT_SEED, "stages": stages}})
    log.info("demo_checkpoint_made", checkpoint=open_checkpoint(out).name, out=str(out))
    return out
