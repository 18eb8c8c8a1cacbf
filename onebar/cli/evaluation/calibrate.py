"""Where near begins in an embedder's space: `onebar embed calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import JsonOption, print_json
from onebar.cli.evaluation.anchors import (
    DatasetArgument,
    EmbedderOption,
    LimitOption,
    NearestOption,
    QueriesOption,
    SplitOption,
    measured,
    neighbor_config,
    open_both,
)
from onebar.cli.evaluation.evaluate import SplitName

THRESHOLDS = (-1.0, *(round(0.2 + 0.05 * step, 2) for step in range(14)), 0.88, 0.9, 0.95)
HISTORY_THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(46))
TAKE = "  ← take this one"
NEARLY = 0.98
"""Of the best hit rate: the highest threshold that keeps so much is the one to take."""


def calibrate(
    dataset: DatasetArgument,
    embedder: EmbedderOption,
    nearest: NearestOption = 32,
    queries: QueriesOption = 32,
    split: SplitOption = SplitName.valid,
    limit: LimitOption = None,
    save: Annotated[
        bool, typer.Option("--save", help="Note the thresholds found in the embedder's card.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """How near is near in this embedder's space: for anchors (A), and for histories (H).

    For A the one to take is the highest threshold that keeps nearly all of the best hit rate; for H
    the one that best tells the queries that mattered, by F1.

    Example: onebar embed calibrate data/march --embedder embedders/march/all --save
    """
    from msgspec import structs

    from onebar.embedding.encoder import read_card, write_card
    from onebar.embedding.relevance import NearEnough
    from onebar.evaluation.anchors import near, quality
    from onebar.evaluation.histories import history_quality

    opened, encoder = open_both(dataset, embedder)
    card = read_card(Path(embedder))
    if save and card is None:
        raise typer.BadParameter(f"--save: {embedder} is no embedder of `onebar embed train`")
    found = measured(opened, encoder, split, nearest, queries, limit)
    rows = {t: quality(found, near(neighbor_config(t, nearest, queries))) for t in THRESHOLDS}
    best = max(row.hit_rate for row in rows.values())
    chosen = max(t for t, row in rows.items() if row.hit_rate >= NEARLY * best)
    triggers = [each.trigger for each in found]
    past = {t: history_quality(triggers, NearEnough(encoder, t)) for t in HISTORY_THRESHOLDS}
    touching = max(past, key=lambda t: past[t].f1) if any(t.recent for t in triggers) else None
    if save and card is not None:
        write_card(
            Path(embedder), structs.replace(card, threshold=chosen, history_threshold=touching)
        )
    if as_json:
        print_json(
            {
                "threshold": chosen,
                "by_threshold": [[t, row] for t, row in rows.items()],
                "history_threshold": touching,
                "history_by_threshold": [[t, row] for t, row in past.items()],
            }
        )
        return
    print("A: threshold  hit rate                                  anchors  covered")
    for threshold, row in rows.items():
        print(
            f"{threshold:12g}  {row.hit_rate:.3f} {_bar(row.hit_rate, best)}  {row.size:8.1f}  "
            f"{row.covered:6.1%}{TAKE if threshold == chosen else ''}"
        )
    if touching is None:
        print("H: no user of these triggers had searched before")
        return
    print("H: threshold        F1                                  queries   shared")
    for threshold, kept in past.items():
        print(
            f"{threshold:12g}  {kept.f1:.3f} {_bar(kept.f1, past[touching].f1)}  {kept.size:8.1f}  "
            f"{kept.shared:6.1%}{TAKE if threshold == touching else ''}"
        )


def _bar(value: float, best: float) -> str:
    return f"{'█' * round(32 * value / (best or 1.0)):32}"
