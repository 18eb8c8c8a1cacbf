"""A BART from elsewhere as a checkpoint of ours."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import INTERRUPTED, JsonOption, command_settings, print_json
from onebar.process.console import say


class Quantization(StrEnum):
    """How CTranslate2 keeps the weights."""

    int8 = "int8"
    int16 = "int16"
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


def import_model(
    source: Annotated[
        str,
        typer.Argument(
            help="A directory with a BART in transformers' format, or its name on the hub."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    name: Annotated[
        str | None, typer.Option(help="What its name begins with; that of SOURCE if not given.")
    ] = None,
    quantization: Annotated[
        Quantization, typer.Option(help="How CTranslate2 keeps the weights.")
    ] = Quantization.int8,
    weights: Annotated[
        bool,
        typer.Option(help="Keep float weights too, to train on and for the engine `torch`."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint of a BART from elsewhere, without training it.

    [SEP] and [REJECT] are added to its vocabulary. It has not learned OneBar's task: train on from
    it with `onebar train sft --init`.

    Example: onebar train import facebook/bart-base --out checkpoints/bart-base
    """
    from onebar.training.models.convert import import_model as run_import

    command_settings()
    say(f"importing {source}")
    try:
        checkpoint = run_import(
            source, out, name=name, quantization=quantization.value, weights=weights
        )
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        size = sum(fact.size for fact in checkpoint.card.files.values())
        print_json({"name": checkpoint.name, "path": str(checkpoint.path), "bytes": size})
    else:
        print(checkpoint.path)
