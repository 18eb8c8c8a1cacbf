"""From a checkpoint to one that orders candidates as a feed's people ask: `onebar train phrases`.

It takes texts with the queries that were asked for them, and no impression log. Which spans of a
text people type is learned from the dataset's train part; what the generator's word is worth beside
them from its valid part, whose queries the generator has not learnt. The last share of that part is
held out, and tells whether the new order is better than the one before.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.evaluation.predict import BATCH
from onebar.evidence.evidence import Evidence
from onebar.evidence.prompt import build_prompt
from onebar.generator.checkpoint import (
    BOOK,
    CLICKS,
    LEXICON,
    RANKER,
    Checkpoint,
    open_checkpoint,
)
from onebar.generator.load import load_engine
from onebar.learning.phrases import Example, learn_phrases, learn_sources
from onebar.learning.written import begin, evenly, write_anew
from onebar.process.console import Update
from onebar.process.files import replace_file
from onebar.recommending.candidates import choose
from onebar.recommending.grounding import Lexicon, calibrated_floor
from onebar.recommending.loading import open_taste
from onebar.recommending.material import told
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Ranker
from onebar.records import Candidate
from onebar.triggers import CARD as DATASET_CARD
from onebar.triggers import TriggerDataset, open_dataset

log = structlog.get_logger(__name__)

LEAST_PAIRS = 200
"""Of a part; below them nothing is learned."""
LEAST_RIGHT = 50
"""Queries that the generator wrote as they were asked: with fewer the floor stays as it was."""
BAR = 8
"""Queries of a list that is measured."""


class PhrasesConfig(Struct, frozen=True, kw_only=True):
    """What is learned from, and how."""

    dataset: Path
    checkpoint: Path
    """The checkpoint whose candidates are ordered."""
    out: Path
    """The checkpoint to write; what was made so far lies in `.OUT.phrases` beside it."""
    beam: int = 8
    """Candidates of the generator: as many as in serving."""
    most: int = 20_000
    """At most so many pairs of the train part, evenly from all."""
    any_shape: bool = True
    """Whether spans of any shape are candidates, as for people who type questions; else only those
    that look well in a bar."""
    l2: float = 1.0
    held_out: float = 0.25
    """The last share of the valid part's pairs, on which the order is measured."""
    threads: int = 1
    """Prompts decoded side by side."""

    @property
    def fingerprint(self) -> str:
        """What must be equal for what an interrupted run has made to be of use."""
        fixed = (
            (self.dataset / DATASET_CARD).read_bytes(),
            open_checkpoint(self.checkpoint, verify=False).name,
            *(self.beam, self.most, self.any_shape, self.l2),
        )
        return hashlib.sha256(msgspec.json.encode(fixed)).hexdigest()


class FewPairsError(OneBarError, ValueError):
    """There is too little to learn from."""


def train_phrases(
    config: PhrasesConfig,
    update: Callable[[str, float, str], None] = lambda phase, share, text: None,
) -> Path:
    """Learn, and write the checkpoint with its own `ranker.json`; its path.

    Its lexicon, where it has one, has the words of the dataset's texts besides, and its floor is
    found anew. A click ranker was grown on the order before, so it is left out. Interrupted, the
    same call goes on. Raises `DatasetError`, `CheckpointError`, `FewPairsError`; nothing
    half-written is left under `out`.
    """
    dataset = open_dataset(config.dataset)
    checkpoint = open_checkpoint(config.checkpoint)
    before = msgspec.structs.replace(open_taste(checkpoint), scorer=None, book=None)
    train = evenly(texts_of(dataset), config.most)
    valid = evenly(moments_of(dataset), config.most)
    for part, found in (("train", train), ("valid", valid)):
        if len(found) < LEAST_PAIRS:
            raise FewPairsError(
                f"the {part} part of {config.dataset} has {len(found)} texts with a query, and at "
                f"least {LEAST_PAIRS} are needed"
            )
    work = config.out.parent / f".{config.out.name}.phrases"
    begin(work, config.fingerprint)
    update("learning phrases", 0.0, f"of {len(train):,} pairs")
    phrases = _phrases(train, work / RANKER, config)
    beams = _beams(
        valid, checkpoint, work, config, lambda share, text: update("generating", share, text)
    )
    examples = [one.example(beam) for one, beam in zip(valid, beams, strict=True)]
    lexicon = before.lexicon
    if lexicon is not None:
        lexicon = lexicon.joined(Lexicon.of(dataset.texts()))
    right = [c for one in examples for c in one.beam if c.text in one.queries]
    floor = calibrated_floor(right) if len(right) >= LEAST_RIGHT else before.floor
    taste = msgspec.structs.replace(before, ranker=phrases, lexicon=lexicon, floor=floor)
    update("weighing sources", 0.0, f"of {len(examples):,} pairs")
    edge = round((1 - config.held_out) * len(examples))
    tried = learn_sources(examples[:edge], phrases, taste=taste)
    held = {
        "pairs": len(examples) - edge,
        **hits(examples[edge:], msgspec.structs.replace(taste, ranker=tried)),
        **{f"before {name}": x for name, x in hits(examples[edge:], before).items()},
    }
    log.info("phrases_learned", **held)
    if held["hr@8"] <= held["before hr@8"]:
        log.warning("phrases_not_better", **held)
    facts = {
        "dataset": str(config.dataset),
        "train": len(train),
        "valid": len(valid),
        "held_out": held,
        "settings": {name: getattr(config, name) for name in ("beam", "most", "any_shape", "l2")},
    }
    ranker = learn_sources(examples, phrases, taste=taste)
    learned = msgspec.structs.replace(taste, ranker=ranker)
    write_anew(
        checkpoint,
        config.out,
        lambda directory: _put(directory, learned),
        without=(CLICKS, BOOK),
        generation=msgspec.structs.replace(checkpoint.card.generation, floor=floor),
        phrases=facts,
    )
    shutil.rmtree(work, ignore_errors=True)
    return config.out


class Asked(Struct, frozen=True):
    """Evidence, and what was asked there: clicked or typed."""

    evidence: Evidence
    queries: tuple[str, ...]

    def example(self, beam: Sequence[Candidate] = ()) -> Example:
        return Example(told(self.evidence), self.queries, tuple(beam))


def texts_of(dataset: TriggerDataset) -> list[Asked]:
    """Each text of the train part, by itself, with all that was asked for it, in the order of the
    first."""
    asked: dict[tuple[str, str], dict[str, None]] = {}
    for trigger in dataset.read("train", ("click", "search")):
        asked.setdefault((trigger.text, trigger.summary), {})[trigger.target] = None
    return [
        Asked(Evidence(text, summary), tuple(queries)) for (text, summary), queries in asked.items()
    ]


def moments_of(dataset: TriggerDataset) -> list[Asked]:
    """Each click and search of the valid part, with all the evidence of its moment, but for anchors
    of near videos: no checkpoint need be able to read them."""
    return [
        Asked(trigger.own_evidence, (trigger.target,))
        for trigger in dataset.read("valid", ("click", "search"))
    ]


def hits(examples: Sequence[Example], taste: Taste) -> dict[str, float]:
    """How often the first query, and any of the bar, is one that was asked, 0 to 1."""
    first = among = 0
    for one in examples:
        shown = [each.text for each in choose(one.material, one.beam, BAR, taste).queries]
        first += bool(shown) and shown[0] in one.queries
        among += not set(shown).isdisjoint(one.queries)
    many = max(1, len(examples))
    return {"hr@1": round(first / many, 4), "hr@8": round(among / many, 4)}


def _phrases(train: Sequence[Asked], path: Path, config: PhrasesConfig) -> Ranker:
    if path.is_file():
        return Ranker.load(path)
    texts = [one.example() for one in train]
    learned = learn_phrases(texts, l2=config.l2, least=3, any_shape=config.any_shape)
    learned.save(path)
    return Ranker.load(path)


def _beams(
    asked: Sequence[Asked],
    checkpoint: Checkpoint,
    work: Path,
    config: PhrasesConfig,
    update: Update,
) -> list[list[Candidate]]:
    """What the checkpoint generates for each; the files that are there are not made again."""
    decoder = msgspec.msgpack.Decoder(list[list[Candidate]])
    files = [work / f"beams-{at:06d}.msgpack" for at in range(0, len(asked), BATCH)]
    if not all(path.is_file() for path in files):
        engine = load_engine(checkpoint, beam_size=config.beam, workers=config.threads)
        try:
            for number, path in enumerate(files):
                update(number / len(files), f"{number * BATCH:,} of {len(asked):,}")
                if path.is_file():
                    continue
                chunk = asked[number * BATCH : (number + 1) * BATCH]
                prompts = [build_prompt(one.evidence, checkpoint.card.prompt) for one in chunk]
                made = engine.generate(prompts, config.beam)
                replace_file(path, msgspec.msgpack.encode(made), durable=False)
        finally:
            engine.close()
    return [beam for path in files for beam in decoder.decode(path.read_bytes())]


def _put(directory: Path, taste: Taste) -> None:
    taste.ranker.save(directory / RANKER)
    if taste.lexicon is not None:
        taste.lexicon.save(directory / LEXICON)
