"""`onebar evaluate`: checkpoints and baselines on a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import INTERRUPTED, JsonOption, print_json, write_json
from onebar.process.console import progress, say

if TYPE_CHECKING:
    from onebar.evaluation.outcomes import Outcomes, RelevanceGrade, TapChances
    from onebar.evaluation.predict import Predictor
    from onebar.triggers import TriggerDataset

app = typer.Typer()


class SplitName(StrEnum):
    """A part of a dataset."""

    train = "train"
    valid = "valid"
    test = "test"


@app.command()
def evaluate(
    dataset: Annotated[Path, typer.Option(help="A directory that `onebar dataset` wrote.")],
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...", help="Checkpoint directories.", show_default=False
        ),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="The part to evaluate on.")] = SplitName.test,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also title copy, popularity, anchors alone, and a recall–filter–rank cascade "
            "that learns from the train part.",
        ),
    ] = False,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="Of two checkpoints, OLD and NEW: what the second would change, with an "
            "off-policy estimate of taps.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most triggers, picked by chance but always alike.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=64, help="Queries that count.")] = 8,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="LOG.truth.jsonl of a simulated log: relevance of every query, and how likely a "
            "bar is tapped. May be repeated."
        ),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Also by popularity, cold start, evidence, category.")
    ] = False,
    embedder: Annotated[
        str | None,
        typer.Option(help="A sentence-transformers model, directory or hub name: BAS@k."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a checkpoint; all cores if not given.")
    ] = None,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="A file for the JSON, beside what is printed.")
    ] = None,
) -> None:
    """What checkpoints would have answered to logged impressions, against what was clicked.

    Intervals are 95 %, by user. docs/evaluation.md says what each number means.

    Example: onebar evaluate checkpoints/march --dataset data/march --baselines
    """
    from onebar.triggers import open_dataset

    if not checkpoints and not baselines:
        raise typer.BadParameter("name a checkpoint, or ask for --baselines")
    if out is not None and not out.parent.is_dir():
        raise typer.BadParameter(f"--out: there is no directory {out.parent}")
    if shadow:
        if checkpoints is None or len(checkpoints) != 2:
            raise typer.BadParameter("--shadow compares two checkpoints: OLD NEW")
        given = {"--baselines": baselines, "--truth": truth, "--slices": slices}
        for name, value in {**given, "--embedder": embedder}.items():
            if value:
                raise typer.BadParameter(f"{name} doesn't go with --shadow")
    opened = open_dataset(dataset)
    threads = threads or os.cpu_count() or 1
    try:
        if shadow and checkpoints:
            from onebar.cli.evaluation.shadow import run_shadow

            run_shadow(
                checkpoints[0], checkpoints[1], opened, split.value, limit=limit, k=k,
                threads=threads, as_json=as_json, out=out,
            )  # fmt: skip
            return
        outcomes = _measure(
            opened,
            _predictors(checkpoints or [], opened if baselines else None, k, threads),
            split=split,
            limit=limit,
            k=k,
            truth=_truth(truth) if truth else None,
            slices=slices,
            embedder=embedder,
        )
        _tell(opened, split, outcomes, as_json=as_json, out=out)
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None


def _predictors(
    checkpoints: Sequence[Path], baselines: TriggerDataset | None, k: int, threads: int
) -> Iterator[Predictor]:
    """One at a time, so that no two models are in memory."""
    from onebar.evaluation.predict import EnginePredictor

    for path in checkpoints:
        predictor = EnginePredictor(path, threads=threads, beam_size=max(8, k), name=str(path))
        yield predictor
        predictor.close()
    if baselines is None:
        return
    from onebar.evaluation.baselines.cascade import Cascade
    from onebar.evaluation.baselines.simple import AnchorsAlone, Popularity, TitleCopy

    yield TitleCopy()
    yield AnchorsAlone()
    train = list(baselines.read("train"))
    yield Popularity(train)
    say(f"cascade: learning from {len(train)} triggers")
    yield Cascade(train)


def _measure(
    dataset: TriggerDataset,
    predictors: Iterator[Predictor],
    *,
    split: SplitName,
    limit: int | None,
    k: int,
    truth: tuple[RelevanceGrade, TapChances] | None,
    slices: bool,
    embedder: str | None,
) -> list[Outcomes]:
    from onebar.evaluation.closeness import embedder_closeness
    from onebar.evaluation.evaluate import evaluation_triggers, propensities
    from onebar.evaluation.outcomes import measure
    from onebar.evaluation.slices import click_counts
    from onebar.evaluation.slices import slices as slice_masks

    triggers = evaluation_triggers(dataset, split.value, limit)
    looked = propensities(dataset, split.value)
    relevance, taps = truth or (None, None)
    closeness = embedder_closeness(embedder) if embedder else None
    masks = slice_masks(triggers, click_counts(dataset.read("train"))) if slices else {}
    found = []
    for predictor in predictors:
        with progress(predictor.name) as update:
            outcomes = measure(
                predictor,
                triggers,
                k,
                relevance=relevance,
                taps=taps,
                propensity=looked,
                closeness=closeness,
                progress=lambda done, of: update(done / of, f"{done}/{of}"),
            )
        found.append(outcomes.with_slices(masks))
    return found


def _truth(paths: Sequence[Path]) -> tuple[RelevanceGrade, TapChances]:
    """Grades and taps by the truths of simulated logs, the first that knows the video."""
    from stream.simulator.loop.judge import Judge
    from stream.simulator.truth import load_truth

    truths = [load_truth(path) for path in paths]
    judges = [Judge(truth) for truth in truths]

    @lru_cache(maxsize=100_000)
    def grade(video_id: str, query: str) -> int:
        for truth in truths:
            if video_id in truth.videos:
                return truth.relevance(video_id, query)
        raise KeyError(video_id)

    def taps(video_id: str, user_id: str, queries: Sequence[str]) -> Sequence[float]:
        for truth, judge in zip(truths, judges, strict=True):
            if video_id in truth.videos:
                return judge.chances(video_id, user_id, queries)
        raise KeyError(video_id)

    return grade, taps


def _tell(
    dataset: TriggerDataset,
    split: SplitName,
    outcomes: Sequence[Outcomes],
    *,
    as_json: bool,
    out: Path | None,
) -> None:
    from rich.console import Console

    from onebar.evaluation.report import report, tables

    said: dict[str, Any] = {
        "dataset": str(dataset.path),
        "split": split.value,
        "rows": report(outcomes),
    }
    if out is not None:
        write_json(out, said)
    if as_json:
        print_json(said)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for table in tables(said["rows"]):
        console.print(table)
