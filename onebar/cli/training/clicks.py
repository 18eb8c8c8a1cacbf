"""A checkpoint that also knows what people tap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from onebar.cli.common import JsonOption, read_settings
from onebar.cli.training.learned import learn


def clicks(
    dataset: Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")],
    init: Annotated[Path, typer.Option(help="The checkpoint whose candidates are put in order.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    beam: Annotated[
        int,
        typer.Option(min=1, max=64, help="Candidates of the generator, then also in serving."),
    ] = 8,
    most: Annotated[
        int | None, typer.Option(min=100, help="Most impressions, evenly from all.")
    ] = None,
    book: Annotated[
        bool, typer.Option(help="Make what the train part's users asked candidates, too.")
    ] = True,
    variety: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="How much less a query is worth in a bar that has one like it."
        ),
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Prompts decoded side by side.")] = 1,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, for instance --set rounds=200; more than one may be given.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The click ranker: which of all candidates are tapped, learned from every query that stood in
    a bar.

    Trees over what is known at the moment (the generator's probability, the anchors, the user's
    newest queries, the video's counters), on the dataset's valid part, which the generator has not
    learnt. Taps are weighed by how likely their place is looked at. The checkpoint is written anew
    with the ranker in it. Interrupted, the same command goes on.

    Example: onebar train clicks data/march --init checkpoints/sft --out checkpoints/taps
    """
    from onebar.learning.clicks import ClicksConfig, train_clicks
    from onebar.process.logging import configure_logging

    values: dict[str, Any] = {
        "dataset": str(dataset),
        "checkpoint": str(init),
        "out": str(out),
        "beam": beam,
        "most": most,
        "book": book,
        "variety": variety,
        "seed": seed,
        "threads": threads,
    }
    for text in more or ():
        name, equals, value = text.partition("=")
        if not equals or name not in ClicksConfig.__struct_fields__ or name in values:
            known = ", ".join(sorted(set(ClicksConfig.__struct_fields__) - set(values)))
            raise typer.BadParameter(f"expected NAME=VALUE with one of {known}; got {text!r}")
        values[name] = value
    try:
        config = msgspec.convert(
            values, ClicksConfig, strict=False, dec_hook=lambda kind, value: kind(value)
        )
    except msgspec.ValidationError as error:
        raise typer.BadParameter(f"a setting has no such value: {error}") from None
    configure_logging(read_settings().log_level, json=False)
    learn("clicks", lambda told: train_clicks(config, told), as_json)
