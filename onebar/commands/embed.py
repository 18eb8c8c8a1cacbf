"""`onebar embed`: the behaviour-aligned embedding and the anchors it brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.commands.common import (
    DAY,
    INTERRUPTED,
    JsonOption,
    command_settings,
    print_json,
    seconds,
)
from onebar.commands.evaluate import SplitName
from onebar.console import Phases, progress, say

if TYPE_CHECKING:
    from onebar.embedding.encoder import Encoder
    from onebar.embedding.enrich import Enriched
    from onebar.embedding.neighbors import NeighborConfig
    from onebar.evaluation.anchors import Source
    from onebar.training.triggers import Kind, Trigger, TriggerDataset

embed = typer.Typer(
    help="Anchors for videos nobody has reacted to yet: relations from a log, an embedding trained "
    "on them, neighbours by it (docs/embedding.md).",
    no_args_is_help=True,
)

DatasetArgument = Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")]
EmbedderOption = Annotated[
    str, typer.Option(help="An embedder, or any sentence-transformers model: directory or name.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1.0,
        max=1.0,
        help="Least similarity of a neighbour; what the embedder was calibrated to if not given.",
    ),
]
NearestOption = Annotated[int, typer.Option(min=1, max=256, help="Neighbours that are asked.")]
SplitOption = Annotated[SplitName, typer.Option(help="The part to measure on.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Most clicks, the first ones.")]
KINDS: tuple[Kind, ...] = ("click", "search")
"""Triggers that tell what a video's anchors were."""
THRESHOLDS = (-1.0, *(round(0.2 + 0.05 * step, 2) for step in range(14)), 0.88, 0.9, 0.95)
NEARLY = 0.98
"""Of the best hit rate: the highest threshold that keeps so much is the one to take."""


@embed.command("relations")
def relations(
    archive: Annotated[Path, typer.Argument(help="A directory that `onebar archive` wrote.")],
    out: Annotated[Path, typer.Option(help="The directory to write.")],
    dataset: Annotated[
        Path | None,
        typer.Option(help="Read the log up to where this dataset's train part ends."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=DAY, help="Moment (UTC) the log ends before.")
    ] = None,
    min_count: Annotated[
        int, typer.Option(min=1, help="How often a relation must have been seen.")
    ] = 1,
    engine: Annotated[
        str | None,
        typer.Option(help="An ibis address (for instance pyspark://); DuckDB here if not given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What belongs together by behaviour: query and video, video and query, query and query.

    Give the dataset that the embedder will be measured on, so that nothing of its test part is
    learnt.

    Example: onebar embed relations archive --dataset data/march --out relations/march
    """
    from onebar.training.triggers import open_dataset
    from stream.archive.reader import open_archive
    from stream.dataset.relations import RelationsConfig, mine_relations
    from stream.dataset.tables import COLUMNS

    command_settings()
    if dataset is not None and until is not None:
        raise typer.BadParameter("give --dataset or --until, not both")
    end = seconds(until)
    if dataset is not None:
        end = float(open_dataset(dataset).card.splits["train"]["end"])
    opened = open_archive(archive)
    with Phases() as shown:
        try:
            made = mine_relations(
                {type: opened.table_glob(type) for type in COLUMNS},
                out,
                RelationsConfig(until=end, min_count=min_count),
                source={"archive": str(archive), "events": dict(opened.card.counts)},
                engine=engine,
                told=shown,
            )
        except KeyboardInterrupt:
            say("interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"path": str(made.path), "until": end, "counts": made.card.counts})
        return
    for kind, count in sorted(made.card.counts.items()):
        print(f"{kind:4} {count:>10,}")
    print(made.path)


@embed.command("train")
def train(
    relations: Annotated[
        Path, typer.Argument(help="A directory that `onebar embed relations` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="A directory for the embedders of both stages.")],
    base: Annotated[
        str,
        typer.Option(
            help="`static`: a small one from scratch, no torch when it serves. Or a pretrained "
            "model: a directory or a name on the hub, such as Qwen/Qwen3-Embedding-0.6B."
        ),
    ] = "static",
    init: Annotated[str | None, typer.Option(help="An embedder to go on from.")] = None,
    dim: Annotated[int, typer.Option(min=8, help="Width of the space.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each stage.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs in a step.")] = 256,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    negatives: Annotated[
        int, typer.Option(min=0, help="Hard negatives mined for each text in the second stage.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    device: Annotated[str, typer.Option(help="`cpu`, or `auto` for a GPU where there is one.")] = (
        "auto"
    ),
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a CPU.")] = None,
) -> None:
    """Both stages: query to video, then all relations with hard negatives, in OUT/q2v and OUT/all.

    Interrupted, the same command goes on.

    Example: onebar embed train relations/march --out embedders/march
    """
    from onebar.embedding.train import EmbedConfig, train_all
    from onebar.logs import configure_logging

    configure_logging("info", json=False)
    config = EmbedConfig(
        relations=relations,
        out=out,
        base=base,
        init=init,
        dim=dim,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        negatives=negatives,
        seed=seed,
        device=device,
        threads=threads,
    )
    try:
        print(train_all(out, config))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None


@embed.command("anchors")
def anchors(
    dataset: DatasetArgument,
    embedder: EmbedderOption,
    out: Annotated[Path, typer.Option(help="The dataset to write.")],
    threshold: ThresholdOption = None,
    nearest: NearestOption = 16,
    limit: Annotated[int, typer.Option(min=1, help="Anchors a trigger has at most.")] = 8,
) -> None:
    """A dataset like this one, each trigger's anchors followed by those of its neighbours then.

    Example: onebar embed anchors data/march --embedder embedders/march/all --out data/march-near
    """
    from msgspec import structs

    from onebar.embedding.encoder import threshold_of
    from onebar.embedding.enrich import look_around, merged
    from onebar.training.triggers import SPLITS, Split, write_dataset

    opened, encoder = _open(dataset, embedder)
    threshold = threshold_of(embedder) if threshold is None else threshold
    config = _config(threshold, nearest)
    parts: dict[Split, list[Trigger]] = {split: [] for split in SPLITS}
    order = [split for split in SPLITS for _ in opened.read(split)]
    every = (trigger for split in SPLITS for trigger in opened.read(split))
    with progress("embedding") as update:
        found = look_around(every, encoder, 2 * nearest)
        for at, (split, each) in enumerate(zip(order, found, strict=True), 1):
            parts[split].append(merged(each, config, limit))
            update(at / len(order), f"{at:,} of {len(order):,}")
    told = {"embedder": encoder.name, "threshold": threshold, "nearest": nearest, "limit": limit}
    card = structs.replace(opened.card, source={**opened.card.source, "neighbors": told})
    print(write_dataset(out, parts, opened.texts(), card=card).path)


@embed.command("evaluate")
def evaluate(
    dataset: DatasetArgument,
    embedder: Annotated[
        list[str], typer.Option(help="An embedder; may be repeated to compare stages.")
    ],
    threshold: ThresholdOption = None,
    nearest: NearestOption = 16,
    split: SplitOption = SplitName.test,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """How often the clicked query is among the anchors: the video's own, its neighbours', both.

    Example: onebar embed evaluate data/march --embedder embedders/march/all --threshold 0.5
    """
    from onebar.embedding.encoder import threshold_of
    from onebar.evaluation.anchors import both, neighbors, own

    rows = []
    for name in embedder:
        opened, encoder = _open(dataset, name)
        found = _measured(opened, encoder, split, nearest, limit)
        masks = _masks(opened, found)
        free = _config(-1.0, nearest)
        least = threshold_of(name) if threshold is None else threshold
        kept = _config(least, nearest)
        sources = {
            "own": own,
            f"near, {encoder.name}": neighbors(free),
            f"near ≥ {least:g}, {encoder.name}": neighbors(kept),
            f"own + near, {encoder.name}": both(free),
            f"own + near ≥ {least:g}, {encoder.name}": both(kept),
        }
        rows += [
            row
            for label, source in sources.items()
            for row in _rows(label, found, source, masks)
            if label != "own" or name == embedder[0]
        ]
    _tell(rows, as_json)


@embed.command("calibrate")
def calibrate(
    dataset: DatasetArgument,
    embedder: EmbedderOption,
    nearest: NearestOption = 16,
    split: SplitOption = SplitName.valid,
    limit: LimitOption = None,
    save: Annotated[
        bool, typer.Option("--save", help="Note the threshold found in the embedder's card.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Hit rate and size of neighbour anchors by threshold, to choose one for this embedder.

    The one to take is the highest that keeps nearly all of the best hit rate.

    Example: onebar embed calibrate data/march --embedder embedders/march/all --save
    """
    from msgspec import structs

    from onebar.embedding.encoder import read_card, write_card
    from onebar.evaluation.anchors import neighbors, quality

    opened, encoder = _open(dataset, embedder)
    card = read_card(Path(embedder))
    if save and card is None:
        raise typer.BadParameter(f"--save: {embedder} is no embedder of `onebar embed train`")
    found = _measured(opened, encoder, split, nearest, limit)
    rows = {t: quality(found, neighbors(_config(t, nearest))) for t in THRESHOLDS}
    best = max(row.hit_rate for row in rows.values())
    chosen = max(t for t, row in rows.items() if row.hit_rate >= NEARLY * best)
    if save and card is not None:
        write_card(Path(embedder), structs.replace(card, threshold=chosen))
    if as_json:
        print_json({"threshold": chosen, "by_threshold": [[t, row] for t, row in rows.items()]})
        return
    print("threshold  hit rate                                  anchors  covered")
    for threshold, row in rows.items():
        bar = "█" * round(32 * row.hit_rate / (best or 1.0))
        print(
            f"{threshold:9g}  {row.hit_rate:.3f} {bar:32}  {row.size:8.1f}  {row.covered:6.1%}"
            f"{'  ← take this one' if threshold == chosen else ''}"
        )


def _open(dataset: Path, embedder: str) -> tuple[TriggerDataset, Encoder]:
    from onebar.embedding.encoder import load_encoder
    from onebar.training.triggers import open_dataset

    command_settings()
    return open_dataset(dataset), load_encoder(embedder)


def _config(threshold: float, nearest: int) -> NeighborConfig:
    from onebar.embedding.neighbors import NeighborConfig

    return NeighborConfig(threshold=threshold, nearest=nearest)


def _measured(
    dataset: TriggerDataset, encoder: Encoder, split: SplitName, nearest: int, limit: int | None
) -> list[Enriched]:
    """The clicks of a split with their neighbours; what came before them is the past."""
    from onebar.embedding.enrich import look_around
    from onebar.training.triggers import SPLITS

    wanted: set[str] = set()

    def until_then() -> Iterator[Trigger]:
        for name in SPLITS:
            for trigger in dataset.read(name, KINDS):
                if name == split.value and trigger.kind == "click":
                    if limit is not None and len(wanted) >= limit:
                        return
                    wanted.add(trigger.trigger_id)
                yield trigger
            if name == split.value:
                return

    total = sum(int(facts.get(kind, 0)) for facts in dataset.card.splits.values() for kind in KINDS)
    found = []
    with progress("embedding") as update:
        for at, each in enumerate(look_around(until_then(), encoder, 2 * nearest), 1):
            update(at / max(total, at), f"{at:,} triggers")
            if each.trigger.trigger_id in wanted:
                found.append(each)
    return found


def _masks(dataset: TriggerDataset, found: Sequence[Enriched]) -> dict[str, Any]:
    from onebar.evaluation.anchors import anchor_slices
    from onebar.evaluation.slices import click_counts

    clicks = click_counts(dataset.read("train", ("click",)))
    return {"all": None, **anchor_slices(found, clicks)}


def _rows(
    label: str, found: Sequence[Enriched], source: Source, masks: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row a slice."""
    from msgspec import to_builtins

    from onebar.evaluation.anchors import quality

    return [
        {"anchors": label, "slice": name, **to_builtins(quality(found, source, mask))}
        for name, mask in masks.items()
    ]


def _tell(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("anchors", "slice", "triggers", "hit rate", "in 8", "anchors", "covered")
    for row in rows:
        table.add_row(
            row["anchors"],
            row["slice"],
            f"{row['triggers']:,}",
            f"{row['hit_rate']:.3f}",
            f"{row['recall'][8]:.3f}",
            f"{row['size']:.1f}",
            f"{row['covered']:.1%}",
            end_section=row["slice"] == rows[-1]["slice"],
        )
    Console().print(table)
