"""From an archive to a dataset."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import (
    DAY,
    INTERRUPTED,
    JsonOption,
    command_settings,
    print_json,
    seconds,
)
from onebar.process.console import Phases, say

if TYPE_CHECKING:
    from onebar.triggers import TriggerDataset

app = typer.Typer()

Share = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the triggers, by time.")]


@app.command()
def dataset(
    archive: Annotated[Path, typer.Argument(help="A directory that `onebar archive` wrote.")],
    out: Annotated[Path, typer.Option(help="The dataset directory to write.")],
    since: Annotated[
        datetime | None, typer.Option(formats=DAY, help="First moment (UTC) of triggers.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=DAY, help="Moment (UTC) the log ends before.")
    ] = None,
    valid: Share = 0.1,
    test: Share = 0.1,
    searches: Annotated[
        bool, typer.Option(help="Learn from queries typed after a video, too.")
    ] = True,
    shown_share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Impressions without a click kept for training."),
    ] = 0.0,
    visibility_lag_s: Annotated[
        float, typer.Option(min=0.0, help="How long after it happens a behaviour is known.")
    ] = 0.0,
    per_video: Annotated[
        int | None, typer.Option(min=1, help="Most triggers of one video.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most triggers in all.")] = None,
    strict_days: Annotated[
        bool, typer.Option("--strict-days", help="A day without events is an error.")
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(help="An ibis address (for instance pyspark://); DuckDB here if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is chosen by chance.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Training triggers from an archive: each impression with the evidence of its moment.

    Example: onebar dataset archive --out data/march --since 2026-03-01 --until 2026-04-01
    """
    from onebar.triggers import SPLITS
    from stream.archive.reader import open_archive
    from stream.dataset.build import build_dataset
    from stream.dataset.config import DatasetConfig
    from stream.dataset.days import check_days
    from stream.dataset.tables import COLUMNS

    settings = command_settings()
    opened = open_archive(archive)
    config = DatasetConfig(
        since=seconds(since),
        until=seconds(until),
        valid=valid,
        test=test,
        searches=searches,
        shown_share=shown_share,
        visibility_lag_s=visibility_lag_s,
        per_video=per_video,
        limit=limit,
        policy=settings.policy,
        seed=seed,
    )
    for problem in check_days(opened.days(), config, strict=strict_days):
        say(f"onebar: {problem}")
    with Phases() as shown:
        try:
            made = build_dataset(
                {type: opened.table_glob(type) for type in COLUMNS},
                out,
                config,
                source={"archive": str(archive), "events": dict(opened.card.counts)},
                engine=engine,
                told=shown,
            )
        except KeyboardInterrupt:
            say("interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"path": str(made.path), "splits": made.card.splits})
        return
    for split in SPLITS:
        print(f"{split:6} {_counts(made, split)}")
    if not any(made.card.splits[split].get("reject") for split in SPLITS):
        say("no video was marked sensitive: a model of this dataset can't learn to reject")
    print(made.path)


def _counts(made: TriggerDataset, split: str) -> str:
    kinds = ("click", "search", "reject", "shown")
    return "  ".join(f"{made.card.splits[split].get(kind, 0):>9,} {kind}" for kind in kinds)
