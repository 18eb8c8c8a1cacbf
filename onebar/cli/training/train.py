"""Training, where the extra `train` is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onebar.cli.common import INTERRUPTED, read_settings
from onebar.cli.sections import Whole
from onebar.cli.training.clicks import clicks
from onebar.cli.training.export import export
from onebar.cli.training.import_ import import_model
from onebar.cli.training.phrases import phrases
from onebar.cli.training.refresh import refresh
from onebar.cli.training.reinforce import reinforce
from onebar.process.console import say

train = typer.Typer(
    cls=Whole,
    help="Train a generator from a dataset (needs the extra `train`; docs/index.md).",
    no_args_is_help=True,
)
train.command("import")(import_model)
train.command()(export)
train.command()(phrases)
train.command()(clicks)
train.command()(refresh)
train.command()(reinforce)

DatasetArgument = Annotated[Path, typer.Argument(help="A directory that `onebar dataset` wrote.")]
OutOption = Annotated[Path, typer.Option(help="The checkpoint directory to write.")]
InitOption = Annotated[
    str | None,
    typer.Option(
        help="What to go on from: a checkpoint (`shipped` is the one of the package), a directory "
        "of a transformers BART, or its name on the hub."
    ),
]
PresetOption = Annotated[str, typer.Option(help="Size of a model from scratch.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Most steps.")]
MinutesOption = Annotated[float | None, typer.Option(min=0.0, help="Most minutes.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Examples in a step, for each process.")
]
RateOption = Annotated[float | None, typer.Option(help="Peak learning rate.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the run.")]
DeviceOption = Annotated[str, typer.Option(help="`cpu`, or `auto` for a GPU where there is one.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of a CPU.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting of the stage, for instance --set dropout=0.1 or "
        "--set prompt.history=false; more than one may be given.",
    ),
]


@train.command("pretrain")
def train_pretrain(
    context: typer.Context,
    dataset: DatasetArgument,
    out: OutOption,
    init: InitOption = None,
    preset: PresetOption = "demo",
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    more: SetOption = None,
) -> None:
    """Stage 0: BART's denoising on the dataset's own text, for a start without a hub.

    Example: onebar train pretrain data/march --out checkpoints/pretrained --preset small
    """
    _run(context)


@train.command("sft")
def train_sft(
    context: typer.Context,
    dataset: DatasetArgument,
    out: OutOption,
    init: InitOption = None,
    preset: PresetOption = "demo",
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    more: SetOption = None,
) -> None:
    """Stage 1: supervised training on the clicks of a log, and on what must be rejected.

    Example: onebar train sft data/march --out checkpoints/sft --minutes 30
    """
    _run(context)


@train.command("listwise")
def train_listwise(
    context: typer.Context,
    dataset: DatasetArgument,
    out: OutOption,
    init: Annotated[str, typer.Option(help="The checkpoint of stage 1.")],
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    more: SetOption = None,
) -> None:
    """Stage 2: list-wise DPO over the behaviour levels, against the stage-1 model.

    Example: onebar train listwise data/march --init checkpoints/sft --out checkpoints/listwise
    """
    _run(context)


@train.command("piopd")
def train_piopd(
    context: typer.Context,
    dataset: DatasetArgument,
    out: OutOption,
    init: Annotated[str, typer.Option(help="The checkpoint of stage 2.")],
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    learning_rate: RateOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    more: SetOption = None,
) -> None:
    """Stage 3: on-policy distillation from a teacher that has seen the click.

    Example: onebar train piopd data/march --init checkpoints/listwise --out checkpoints/final
    """
    _run(context)


@train.command("all")
def train_all(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="A directory for the checkpoints of all stages.")],
    init: InitOption = None,
    preset: PresetOption = "demo",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STAGE.NAME=VALUE",
            help="A setting of one stage, for instance --set sft.steps=500.",
        ),
    ] = None,
) -> None:
    """All stages in a row, each from the one before. Interrupted, the same command goes on.

    Example: onebar train all data/march --out checkpoints/march --preset demo
    """
    from onebar.training.recipe import STAGES
    from onebar.training.recipe import train_all as run_all

    changes: dict[str, dict[str, Any]] = {}
    for text in more or ():
        stage, _, setting = text.partition(".")
        if stage not in STAGES:
            raise typer.BadParameter(f"no stage {stage!r}; there are {', '.join(STAGES)}")
        _put(changes.setdefault(stage, {}), setting)
    common = {"dataset": str(dataset), "seed": seed, "device": device, "threads": threads}
    _finish(lambda: run_all(out, common, preset=preset, init=init, changes=changes))


@train.command("demo")
def train_demo(
    out: OutOption = Path("checkpoints/demo"),
    work: Annotated[
        Path, typer.Option(help="Where the log, the archive and the stages lie meanwhile.")
    ] = Path(".cache/demo-checkpoint"),
    events: Annotated[
        int, typer.Option(min=1, help="Simulated events a world and language.")
    ] = 62_500,
) -> None:
    """The small checkpoint of the demo: simulated logs in English and Chinese, all stages.

    Example: onebar train demo --out checkpoints/demo
    """
    from onebar.evaluation.facts import facts
    from onebar.stack.demo_checkpoint import build_demo_checkpoint

    _finish(lambda: build_demo_checkpoint(out, work=work, events=events, measure=facts))


def _run(context: typer.Context) -> None:
    """Run the stage that the command is named for, with the options that were given."""
    from onebar.training.recipe import STAGES, stage_config

    stage, options = str(context.info_name), context.params
    values = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None and name != "more"
    }
    for text in options["more"] or ():
        _put(values, text)
    config = stage_config(stage, values)
    _finish(lambda: STAGES[stage].run(config))


def _put(values: dict[str, Any], text: str) -> None:
    """Add `a.b=value` as {a: {b: value}}; a value in square brackets is a list."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}")
    *path, last = name.split(".")
    for part in path:
        values = values.setdefault(part, {})
    if not value.startswith("["):
        values[last] = value
        return
    try:
        values[last] = json.loads(value)
    except ValueError:
        raise typer.BadParameter(f"expected a list such as [1, 2], got {value!r}") from None


def _finish(work: Any) -> None:
    """Run to the end and print the checkpoint's path."""
    from onebar.process.logging import configure_logging

    configure_logging(read_settings().log_level, json=False)
    try:
        print(work())
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
