"""Training, where the extra `torch` is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.commands.common import (
    INTERRUPTED,
    Format,
    FormatOption,
    open_log,
    read_settings,
)
from onebar.console import say

train = typer.Typer(
    help="Train a generator (needs the extra `torch`: pip install 'onebar[torch]').",
    no_args_is_help=True,
)


@train.command("sft")
def train_sft(
    log: Annotated[Path, typer.Argument(help="The log of events to learn from.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    format: FormatOption = Format.onebar,
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "demo",
    init: Annotated[Path | None, typer.Option(help="A checkpoint to go on from.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Most steps.")] = 2000,
    minutes: Annotated[float | None, typer.Option(help="Most minutes.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a step.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
) -> None:
    """Stage 1: supervised training on the clicks of a log. Interrupted, it goes on.

    Example: onebar train sft feed.jsonl.zst --out checkpoints/mine --minutes 30
    """
    from onebar.logs import configure_logging
    from onebar.training.dataset import write_examples
    from onebar.training.sft import SFTConfig
    from onebar.training.sft import train_sft as run_training
    from stream.examples import examples

    settings = read_settings()
    configure_logging(settings.log_level, json=False)
    opened = open_log(log, format)
    events = (entry.event for entry in opened.entries() if entry.event is not None)
    file = out.parent / f".{out.name}.examples.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    count = write_examples(examples(events, searches=True), file)
    say(f"{count:,} examples from {log}")
    config = SFTConfig(
        examples=file,
        out=out,
        preset=preset,
        init=init,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        seed=seed,
        facts={"log": {"source": str(log), "format": format.value}},
    )
    try:
        print(run_training(config))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    file.unlink(missing_ok=True)


@train.command("demo")
def train_demo(
    out: Annotated[
        Path | None,
        typer.Option(help="The checkpoint directory to write; the shipped one if not given."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 30.0,
    events: Annotated[int, typer.Option(min=1, help="Simulated events a language.")] = 1_000_000,
) -> None:
    """The small checkpoint of the demo, from simulated logs in English and Chinese.

    Example: onebar train demo --out checkpoints/demo --minutes 20
    """
    from onebar.checkpoint import SHIPPED
    from onebar.logs import configure_logging
    from stream.demo_checkpoint import build_demo_checkpoint

    configure_logging(read_settings().log_level, json=False)
    try:
        print(build_demo_checkpoint(out or SHIPPED, minutes=minutes, events=events))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
