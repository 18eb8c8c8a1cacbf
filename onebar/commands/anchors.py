"""How good anchors are: `onebar embed evaluate` and `calibrate`, and the options they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.commands.common import JsonOption, command_settings, print_json
from onebar.commands.evaluate import SplitName
from onebar.console import progress

if TYPE_CHECKING:
    from onebar.embedding.encoder import Encoder
    from onebar.embedding.enrich import Enriched
    from onebar.embedding.neighbors import NeighborConfig
    from onebar.evaluation.anchors import Source
    from onebar.training.triggers import Kind, Trigger, TriggerDataset

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
        opened, encoder = open_both(dataset, name)
        found = _measured(opened, encoder, split, nearest, limit)
        masks = _masks(opened, found)
        free = neighbor_config(-1.0, nearest)
        least = threshold_of(name) if threshold is None else threshold
        kept = neighbor_config(least, nearest)
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

    opened, encoder = open_both(dataset, embedder)
    card = read_card(Path(embedder))
    if save and card is None:
        raise typer.BadParameter(f"--save: {embedder} is no embedder of `onebar embed train`")
    found = _measured(opened, encoder, split, nearest, limit)
    rows = {t: quality(found, neighbors(neighbor_config(t, nearest))) for t in THRESHOLDS}
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


def open_both(dataset: Path, embedder: str) -> tuple[TriggerDataset, Encoder]:
    from onebar.embedding.encoder import load_encoder
    from onebar.training.triggers import open_dataset

    command_settings()
    return open_dataset(dataset), load_encoder(embedder)


def neighbor_config(threshold: float, nearest: int) -> NeighborConfig:
    from onebar.embedding.neighbors import NeighborConfig

    return NeighborConfig(threshold=threshold, nearest=nearest)


def _measured(
    dataset: TriggerDataset, encoder: Encoder, split: SplitName, nearest: int, limit: int | None
) -> list[Enriched]:
    """The clicks of a split with their neighbours; what came before them is the past."""
    from onebar.embedding.enrich import Past
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

    total = sum(dataset.size(name, KINDS) for name in SPLITS)
    found = []
    with progress("embedding") as update:
        for at, each in enumerate(Past(encoder, 2 * nearest).follow(until_then()), 1):
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
