"""`onebar embed`: the behaviour-aligned embedding and the anchors it brings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
from onebar.cli.evaluation.anchors import (
    DatasetArgument,
    EmbedderOption,
    NearestOption,
    QueriesOption,
    ThresholdOption,
    evaluate,
    neighbor_config,
    open_both,
)
from onebar.cli.evaluation.calibrate import calibrate
from onebar.cli.sections import Whole
from onebar.process.console import Phases, Update, progress, say

if TYPE_CHECKING:
    from onebar.triggers import Split, Trigger

embed = typer.Typer(
    cls=Whole,
    help="Anchors for videos nobody has reacted to yet: relations from a log, an embedding trained "
    "on them, neighbours by it (docs/embedding.md).",
    no_args_is_help=True,
)


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
    from onebar.triggers import open_dataset
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
    from onebar.process.logging import configure_logging

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


@embed.command("dataset")
def dataset(
    dataset: DatasetArgument,
    embedder: EmbedderOption,
    out: Annotated[Path, typer.Option(help="The dataset to write.")],
    neighbors: Annotated[
        bool,
        typer.Option(
            help="Put the anchors of its neighbours, and the log's, behind a trigger's own."
        ),
    ] = True,
    history: Annotated[
        bool, typer.Option(help="Choose histories by similarity, with a calibrated embedder.")
    ] = True,
    threshold: ThresholdOption = None,
    nearest: NearestOption = 32,
    queries: QueriesOption = 32,
    limit: Annotated[int, typer.Option(min=1, help="Anchors a trigger has at most.")] = 8,
) -> None:
    """A dataset like this one, with the evidence that this embedder gives: A and H.

    A checkpoint trained on it carries the embedder, and serves with histories chosen likewise.

    Example: onebar embed dataset data/march --embedder embedders/march/all --out data/march-near
    """
    from msgspec import structs, to_builtins

    from onebar.embedding.encoder import threshold_of
    from onebar.embedding.enrich import Past, merged, with_history
    from onebar.embedding.relevance import relevance_of
    from onebar.evidence.evidence import MAX_HISTORY
    from onebar.triggers import SPLITS, write_dataset

    if not neighbors and not history:
        raise typer.BadParameter("with --no-neighbors and --no-history nothing is left to do")
    if out.resolve() == dataset.resolve():
        raise typer.BadParameter(f"--out: {out} is the dataset itself; name another")
    opened, encoder = open_both(dataset, embedder)
    relevance = relevance_of(Path(embedder)) if history else None
    least = threshold_of(embedder) if threshold is None else threshold
    config = neighbor_config(least, nearest, queries)
    most = int(opened.card.settings.get("max_history", MAX_HISTORY))
    past = Past(encoder, nearest, queries)
    total = sum(opened.size(split) for split in SPLITS)
    done = itertools.count(1)

    def enriched(split: Split, update: Update) -> Iterator[Trigger]:
        for each in past.follow(opened.read(split)):
            at = next(done)
            update(at / max(at, total), f"{at:,} of {total:,}")
            trigger = merged(each, config, limit) if neighbors else each.trigger
            yield trigger if relevance is None else with_history(trigger, relevance, most)

    told = {
        "name": encoder.name,
        "neighbors": to_builtins(config) | {"anchors": limit} if neighbors else None,
        "history": history,
    }
    card = structs.replace(
        opened.card,
        source={**opened.card.source, "embedder": told},
        neighbors=neighbors or opened.card.neighbors,
    )
    with progress("embedding") as update:
        # One pass: the parts are written in the order of their time.
        parts = {split: enriched(split, update) for split in SPLITS}
        chosen_by = Path(embedder) if relevance is not None else None
        made = write_dataset(out, parts, opened.texts(), card=card, embedder=chosen_by)
    print(made.path)


embed.command("evaluate")(evaluate)
embed.command("calibrate")(calibrate)
