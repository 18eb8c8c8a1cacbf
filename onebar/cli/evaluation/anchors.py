"""How good an embedder is for A and for H: `onebar embed evaluate`, and what it shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import JsonOption, command_settings, print_json
from onebar.cli.evaluation.evaluate import SplitName
from onebar.process.console import progress

if TYPE_CHECKING:
    from onebar.embedding.encoder import Encoder
    from onebar.embedding.enrich import Enriched
    from onebar.embedding.neighbors import NeighborConfig
    from onebar.evaluation.anchors import Source
    from onebar.triggers import Kind, Trigger, TriggerDataset

DatasetArgument = Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")]
EmbedderOption = Annotated[
    str, typer.Option(help="An embedder, or any sentence-transformers model: directory or name.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1.0,
        max=1.0,
        help="Least similarity of a neighbour anchor to the video; what the embedder was "
        "calibrated to if not given.",
    ),
]
NearestOption = Annotated[int, typer.Option(min=1, max=256, help="Neighbours that are asked.")]
QueriesOption = Annotated[
    int,
    typer.Option(min=0, max=256, help="Queries of the log nearest to the video; 0 takes none."),
]
SplitOption = Annotated[SplitName, typer.Option(help="The part to measure on.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Most clicks, the first ones.")]
KINDS: tuple[Kind, ...] = ("click", "search")
"""Triggers that tell what a video's anchors were."""


def evaluate(
    dataset: DatasetArgument,
    embedder: Annotated[
        list[str], typer.Option(help="An embedder; may be repeated to compare stages.")
    ],
    threshold: ThresholdOption = None,
    nearest: NearestOption = 32,
    queries: QueriesOption = 32,
    split: SplitOption = SplitName.test,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """How often the clicked query is among the anchors: the video's own (raw co-occurrence), those
    of its neighbours (`near`), those of the whole log that are near it (`log`), and all together.

    `by voices` are the neighbours' in the order in which neighbours asked for them, whether they
    fit the video or not. A second table says how well H is chosen: precision and recall of those of
    the user's queries that share a term with the clicked one, and the share of triggers that keep
    none: they share what everyone gets.

    Example: onebar embed evaluate data/march --embedder embedders/march/all --threshold 0.5
    """
    from math import inf

    from msgspec import structs

    from onebar.embedding.encoder import read_card, threshold_of
    from onebar.embedding.relevance import NearEnough
    from onebar.evaluation.anchors import both, near, own
    from onebar.evaluation.histories import history_quality
    from onebar.evidence.evidence import shares_a_term

    reports = []
    for name in embedder:
        opened, encoder = open_both(dataset, name)
        found = measured(opened, encoder, split, nearest, queries, limit)
        masks = _masks(opened, found)
        least = threshold_of(name) if threshold is None else threshold
        videos = neighbor_config(-1.0, nearest, 0)
        log = neighbor_config(-1.0, 0, queries)
        every = neighbor_config(-1.0, nearest, queries)
        kept = neighbor_config(least, nearest, queries)
        sources = {
            "own": own,
            "near, by voices": near(structs.replace(videos, temperature=inf)),
            "near": near(videos),
            f"near ≥ {least:g}": near(structs.replace(videos, threshold=least)),
            "log": near(log),
            f"log ≥ {least:g}": near(structs.replace(log, threshold=least)),
            "near + log": near(every),
            f"near + log ≥ {least:g}": near(kept),
            "own + near": both(videos),
            "own + near + log": both(every),
            f"own + near + log ≥ {least:g}": both(kept),
        }
        if not queries:
            sources = {label: source for label, source in sources.items() if "log" not in label}
        triggers = [each.trigger for each in found]
        histories = {"terms": history_quality(triggers, shares_a_term)}
        card = read_card(Path(name))
        if card is not None and (touching := card.history_threshold) is not None:
            histories[f"≥ {touching:g}"] = history_quality(triggers, NearEnough(encoder, touching))
        report = {
            "embedder": encoder.name,
            "anchors": [
                row
                for label, source in sources.items()
                for row in _rows(label, found, source, masks)
            ],
            "histories": histories,
        }
        reports.append(report)
        if not as_json:
            _tell(report)
    if as_json:
        print_json(reports)


def open_both(dataset: Path, embedder: str) -> tuple[TriggerDataset, Encoder]:
    from onebar.embedding.encoder import load_encoder
    from onebar.triggers import open_dataset

    command_settings()
    return open_dataset(dataset), load_encoder(embedder)


def neighbor_config(threshold: float, nearest: int, queries: int) -> NeighborConfig:
    from onebar.embedding.neighbors import NeighborConfig

    return NeighborConfig(threshold=threshold, nearest=nearest, queries=queries)


def measured(
    dataset: TriggerDataset,
    encoder: Encoder,
    split: SplitName,
    nearest: int,
    queries: int,
    limit: int | None,
) -> list[Enriched]:
    """The clicks of a split with what is near them; what came before them is the past."""
    from onebar.embedding.enrich import Past
    from onebar.triggers import SPLITS

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
        past = Past(encoder, nearest, queries)
        for at, each in enumerate(past.follow(until_then()), 1):
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


def _tell(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("anchors", "slice", "triggers", "hit rate", "in 8", "anchors", "covered")
    anchors = Table(*columns, title=report["embedder"])
    last = report["anchors"][-1]["slice"]
    for row in report["anchors"]:
        anchors.add_row(
            row["anchors"],
            row["slice"],
            f"{row['triggers']:,}",
            f"{row['hit_rate']:.3f}",
            f"{row['recall'][8]:.3f}",
            f"{row['size']:.1f}",
            f"{row['covered']:.1%}",
            end_section=row["slice"] == last,
        )
    columns = ("history by", "triggers", "precision", "recall", "F1", "queries", "shared")
    histories = Table(*columns)
    for label, row in report["histories"].items():
        histories.add_row(
            label,
            f"{row.triggers:,}",
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            f"{row.size:.2f}",
            f"{row.shared:.1%}",
        )
    console = Console()
    console.print(anchors)
    console.print(histories)
