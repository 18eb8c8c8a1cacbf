"""`onebar train reinforce`: the generator is moved towards what the click ranker likes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from onebar.cli.common import INTERRUPTED, read_settings
from onebar.process.console import say


def reinforce(
    dataset: Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")],
    init: Annotated[Path, typer.Option(help="A checkpoint with float weights and a click ranker.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Most steps.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Most minutes.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    device: Annotated[
        str, typer.Option(help="`cpu`, or `auto` for a GPU where there is one.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a CPU.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, for instance --set lists=8 or --set refused=0.1; more than "
            "one may be given.",
        ),
    ] = None,
) -> None:
    """List-wise reinforcement: lists of the model's own queries, rewarded by the click ranker.

    For each prompt the model writes several lists. A query is worth how likely it is tapped, less
    than nothing where it would not be shown; a list is worth the taps that it would get, where what
    was said already counts little. The model moves towards the better ones. Nothing of this runs in
    serving. Interrupted, the same command goes on.

    Example: onebar train reinforce data/march --init checkpoints/taps --out checkpoints/reinforced
    """
    from onebar.generator.checkpoint import WEIGHTS, open_checkpoint
    from onebar.learning.reward import RewardConfig, TapReward
    from onebar.process.logging import configure_logging
    from onebar.training.reinforce.stage import ReinforceConfig, train_reinforce

    values: dict[str, Any] = {
        "dataset": str(dataset),
        "out": str(out),
        "init": str(init),
        "steps": steps,
        "minutes": minutes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "threads": threads,
    }
    given = {name: value for name, value in values.items() if value is not None}
    rewarding: dict[str, Any] = {}
    for text in more or ():
        name, equals, value = text.partition("=")
        own = name in RewardConfig.__struct_fields__
        settings = {*RewardConfig.__struct_fields__, *ReinforceConfig.__struct_fields__}
        if not equals or name not in settings - {*values, "reward", "facts", "curves"}:
            known = ", ".join(sorted(settings - {*values, "reward", "facts", "curves"}))
            raise typer.BadParameter(f"expected NAME=VALUE with one of {known}; got {text!r}")
        (rewarding if own else given)[name] = value
    try:
        config = msgspec.convert(
            given, ReinforceConfig, strict=False, dec_hook=lambda kind, value: kind(value)
        )
        reward = RewardConfig(**msgspec.convert(rewarding, dict[str, float], strict=False))
    except msgspec.ValidationError as error:
        raise typer.BadParameter(f"a setting has no such value: {error}") from None
    if config.lists < 2 or config.places < 1:
        raise typer.BadParameter("lists must be 2 at least, to compare, and places 1")
    if config.temperature <= 0:
        raise typer.BadParameter("the temperature must be above 0")
    configure_logging(read_settings().log_level, json=False)
    checkpoint = open_checkpoint(init)
    checkpoint.need(WEIGHTS)
    try:
        made = train_reinforce(config, TapReward(checkpoint, reward))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    print(made)
