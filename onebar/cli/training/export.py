"""A checkpoint written anew for another dataset's queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import INTERRUPTED, JsonOption, command_settings, print_json
from onebar.process.console import say


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint with float weights.")],
    dataset: Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    exact_within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1000,
            help="Search again in float32 where the first two scores are closer; 0 is never "
            "[default: as the checkpoint says].",
        ),
    ] = None,
    weights: Annotated[bool, typer.Option(help="Keep the float weights.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint anew, for the queries of a dataset: CTranslate2 then scores the vocabulary
    entries that these use.

    Training does so for its own dataset; this is for a checkpoint that was imported, or that serves
    another feed now.

    Example: onebar train export checkpoints/mine datasets/march --out checkpoints/mine-march
    """
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.training.models.export import export_again
    from onebar.training.models.outputs import outputs_of
    from onebar.triggers import open_dataset

    command_settings()
    tokenizer = open_checkpoint(checkpoint).tokenizer()
    try:
        made = export_again(
            checkpoint,
            out,
            outputs=outputs_of(open_dataset(dataset), tokenizer),
            exact_within=exact_within,
            weights=weights,
        )
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"name": made.name, "path": str(made.path)})
    else:
        print(made.path)
