"""A shortlist for a checkpoint that has none, or another dataset's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.commands.common import INTERRUPTED, JsonOption, command_settings, print_json
from onebar.console import progress, say


def shortlist(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint directory.")],
    dataset: Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a checkpoint with a shortlist: the vocabulary entries a query may use, by its prompt's.

    CTranslate2 then scores a few hundred entries where it would score all. Training makes one of
    its own dataset; this is for a checkpoint that was imported, or that serves another feed now.

    Example: onebar train shortlist checkpoints/mine datasets/march --out checkpoints/mine-short
    """
    from onebar.checkpoint import open_checkpoint
    from onebar.training.shortlist import with_shortlist
    from onebar.training.triggers import open_dataset

    command_settings()
    opened, triggers = open_checkpoint(checkpoint), open_dataset(dataset)
    try:
        with progress("reading triggers") as update:
            made = with_shortlist(opened, triggers, out, seen=lambda done: update(done, ""))
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"name": made.name, "path": str(made.path)})
    else:
        print(made.path)
