"""What the commands share that learn something into a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from onebar.cli.common import INTERRUPTED, print_json
from onebar.process.console import progress, say

Told = Callable[[str, float, str], None]


def learn(name: str, train: Callable[[Told], Path], as_json: bool) -> None:
    """Train with a progress bar, and print the checkpoint that was written; as JSON with what its
    card says of `name`."""
    from onebar.generator.checkpoint import open_checkpoint

    try:
        with progress(name) as update:
            made = open_checkpoint(
                train(lambda phase, share, text: update(share, f"{phase} {text}"))
            )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"name": made.name, "path": str(made.path), name: made.card.training[name]})
    else:
        print(made.path)
