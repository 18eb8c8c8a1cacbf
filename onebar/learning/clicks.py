"""From a checkpoint to one that knows what people tap: `onebar train clicks`.

The generator says what is asked; which of all candidates this user taps is learned here, from every
query that stood in a bar and was looked at. It learns from the dataset's valid part, for the
generator has the train part's clicks by heart and is surer of them than of any to come. The last
share of that part is held out: there it is chosen how long to boost, and whether the ranker is
better than what the checkpoint had.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import structlog

from onebar.errors import OneBarError
from onebar.evaluation.offpolicy import examination
from onebar.evaluation.predict import prompt_of
from onebar.gating.personal import shipped_patterns
from onebar.gating.risk import shipped_rules
from onebar.generator.checkpoint import (
    BOOK,
    CLICKS,
    Checkpoint,
    open_checkpoint,
)
from onebar.generator.load import load_engine
from onebar.learning.exposures import Rows, rows_of
from onebar.learning.grow import GrowConfig, grow
from onebar.learning.written import begin, evenly, write_anew
from onebar.process.console import Update
from onebar.ranking.book import Book
from onebar.ranking.habits import LEAST_USERS, Habits
from onebar.ranking.trees import Trees
from onebar.recommending.clicks import ClickRanker
from onebar.recommending.features import FEATURES
from onebar.recommending.grounding import presentable
from onebar.recommending.loading import open_taste
from onebar.recommending.pool import Taste
from onebar.triggers import CARD as DATASET_CARD
from onebar.triggers import EmptyDatasetError, Split, Trigger, TriggerDataset, open_dataset

log = structlog.get_logger(__name__)

CHUNK = 256
"""Impressions whose rows are kept together, and are not made again after an interruption."""
TAPPED_SHARE = 0.65
"""Of the bars that are learned from, where not all are, those with a tap."""
LEAST_TAPS = 50
"""Below them nothing is learned."""


class ClicksConfig(GrowConfig, frozen=True, kw_only=True):
    """What is learned from, and how."""

    dataset: Path
    checkpoint: Path
    """The checkpoint whose candidates are ordered."""
    out: Path
    """The checkpoint to write; what was made so far lies in `.OUT.clicks` beside it."""
    split: Split = "valid"
    """The part to learn from: one that the generator has not learnt."""
    beam: int = 8
    """Candidates of the generator; as many are generated in serving."""
    most: int | None = None
    """At most so many impressions (`some_of`); None for all."""
    book: bool = True
    """Whether the queries of the dataset's train part become candidates."""
    book_least: int = 1
    """Users who must have asked a query for it to stand in the book."""
    go_on: bool = False
    """From the click ranker that the checkpoint has, where it has one: its book's queries stay, and
    so do its trees where new ones are no better on the held-out bars."""
    threads: int = 1
    rows: Path | None = None
    """Where rows are kept for other runs on the same ones, with other seeds or settings of the
    trees; None keeps them beside `out` until it is written."""

    @property
    def fingerprint(self) -> str:
        """What must be equal for the rows of another run to be of use to this one."""
        fixed = (
            (self.dataset / DATASET_CARD).read_bytes(),
            open_checkpoint(self.checkpoint, verify=False).name,
            *(self.split, self.beam, self.most, self.book, self.book_least, self.go_on),
            FEATURES,
        )
        return hashlib.sha256(msgspec.json.encode(fixed)).hexdigest()


class FewTapsError(OneBarError, ValueError):
    """There is too little to learn from."""


def train_clicks(
    config: ClicksConfig, told: Callable[[str, float, str], None] = lambda phase, share, text: None
) -> Path:
    """Learn, and write the checkpoint with the ranker in it; its path.

    Interrupted, the same call goes on with the rows that were made. Raises `DatasetError`,
    `CheckpointError`, `FewTapsError`; nothing half-written is left under `out`.
    """
    dataset = open_dataset(config.dataset)
    checkpoint = open_checkpoint(config.checkpoint)
    # Places are looked at alike in all bars: the more of them, the surer.
    propensity = examination(list(dataset.bars(config.split)))
    log.info("propensities", by_position=[round(float(e), 3) for e in propensity])
    every = impressions(dataset, config)
    triggers, counts = some_of(every, config.most)
    taps = sum(any(item.clicked for item in trigger.shown) for trigger in triggers)
    if taps < LEAST_TAPS:
        raise FewTapsError(
            f"the {config.split} part of {config.dataset} has {taps} bars with a tap among "
            f"{len(triggers)}, and at least {LEAST_TAPS} are needed: make the dataset from a "
            "longer log, or with a greater --valid"
        )
    if taps == len(triggers) == len(every):
        raise FewTapsError(
            f"every bar of the {config.split} part of {config.dataset} was tapped, so what is "
            "passed over can't be told: make the dataset again, for it to keep the others"
        )
    work = config.rows or config.out.parent / f".{config.out.name}.clicks"
    begin(work, config.fingerprint)
    own = open_taste(checkpoint)
    former = own.scorer.trees if config.go_on and isinstance(own.scorer, ClickRanker) else None
    known = own.book if config.go_on else None
    book = make_book(dataset, work / BOOK, config, known) if config.book else None
    taste = msgspec.structs.replace(own, scorer=None, book=book)
    files = make_rows(
        triggers, checkpoint, taste, work, config, lambda share, text: told("reading", share, text)
    )
    rows = Rows.load(files)
    told("growing trees", 0.0, "")
    grown = grow(rows, counts, propensity, config, former=former)
    log.info("click_ranker_grown", **grown.facts)
    held_out = grown.facts["held_out"]
    if held_out["taps"] <= held_out["before taps"]:
        log.warning("click_ranker_not_better", **held_out)
    if former is not None and held_out["taps"] < grown.facts["former"]["taps"]:
        log.info("former_trees_kept", new=held_out, former=grown.facts["former"])
        trees = former
    else:
        trees = Trees.of_lightgbm(grown.model, {"beam": config.beam, "variety": config.variety})
    facts = {
        **grown.facts,
        "kept_former": trees is former,
        "dataset": str(config.dataset),
        "split": config.split,
        "impressions": len(triggers),
        "taps": taps,
        "propensity": [round(float(e), 4) for e in propensity],
        "book": 0 if book is None else len(book),
        "settings_of_run": {"beam": config.beam, "most": config.most},
    }
    write_anew(
        checkpoint,
        config.out,
        lambda directory: _put(directory, trees, book),
        without=(BOOK,),
        clicks=facts,
    )
    if config.rows is None:
        shutil.rmtree(work, ignore_errors=True)
    return config.out


def impressions(dataset: TriggerDataset, config: ClicksConfig) -> list[Trigger]:
    """The impressions that showed something, tapped or not, by time."""
    found = [
        trigger
        for trigger in dataset.read(config.split, ("click", "search", "shown"))
        if trigger.shown
    ]
    if not found:
        raise EmptyDatasetError(
            f"no impression in the {config.split} part of {config.dataset} says what stood in the "
            "bar: the log needs exposures"
        )
    return found


def some_of(triggers: Sequence[Trigger], most: int | None) -> tuple[list[Trigger], list[float]]:
    """At most so many of them, evenly from all of their kind, and what each then counts.

    A bar with a tap says more than one without, so of the former there are up to `TAPPED_SHARE`;
    each bar without counts for those of its kind that were left out.
    """
    tapped = [any(item.clicked for item in trigger.shown) for trigger in triggers]
    if most is None or len(triggers) <= most:
        return list(triggers), [1.0] * len(triggers)
    with_tap = [at for at, yes in enumerate(tapped) if yes]
    without = [at for at, yes in enumerate(tapped) if not yes]
    many = min(len(with_tap), max(round(TAPPED_SHARE * most), most - len(without)))
    kept, others = evenly(with_tap, many), evenly(without, most - many)
    counts = len(without) * len(kept) / max(1, len(others) * len(with_tap))
    places = sorted((*kept, *others))
    return [triggers[at] for at in places], [1.0 if tapped[at] else counts for at in places]


def make_book(
    dataset: TriggerDataset, path: Path, config: ClicksConfig, known: Book | None = None
) -> Book:
    """What the users of the train part asked, each query counted once a user, as far as it may be
    shown to anybody, and how they put it, beside what is `known`; read where it was made before."""
    if path.is_file():
        return Book.load(path)
    least = int(dataset.card.settings.get("policy", {}).get("showable_users", 1))
    users: dict[str, dict[str, None]] = {}
    for trigger in dataset.read("train", ("click", "search")):
        mine = users.setdefault(trigger.user_id or trigger.trigger_id, {})
        for query in (trigger.target, *trigger.recent):
            if shown := presentable(query):
                mine[shown] = None
    asked = Counter(chain.from_iterable(users.values()))
    personal, risk = shipped_patterns(), shipped_rules()
    kept = {
        query: count
        for query, count in asked.items()
        if count >= config.book_least
        and count >= least
        and personal.kind(query) is None
        and risk.risk((query,)) is None
    }
    habits = Habits.of([tuple(mine) for mine in users.values()], max(least, LEAST_USERS))
    found = Book.of(kept, habits)
    book = found if known is None else known.joined(found)
    book.save(path)
    return book


def make_rows(
    triggers: Sequence[Trigger],
    checkpoint: Checkpoint,
    taste: Taste,
    work: Path,
    config: ClicksConfig,
    update: Update,
) -> list[Path]:
    """The files with the rows of all impressions; those that are there are not made again."""
    files = [work / f"rows-{at // CHUNK:05d}.npz" for at in range(0, len(triggers), CHUNK)]
    if all(path.is_file() for path in files):
        return files
    engine = load_engine(checkpoint, beam_size=config.beam, workers=config.threads)
    try:
        for number, path in enumerate(files):
            update(number / len(files), f"{number * CHUNK:,} of {len(triggers):,} impressions")
            if path.is_file():
                continue
            chunk = triggers[number * CHUNK : (number + 1) * CHUNK]
            prompts = [prompt_of(one, checkpoint.card.prompt) for one in chunk]
            beams = engine.generate(prompts, config.beam)
            rows_of(chunk, beams, taste, first=number * CHUNK).save(path)
    finally:
        engine.close()
    return files


def _put(directory: Path, trees: Trees, book: Book | None) -> None:
    trees.save(directory / CLICKS)
    if book is not None:
        book.save(directory / BOOK)
