"""`onebar train refresh`: a little more of stage 2 and the click ranker anew, on what users did
lately."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from onebar.cli.common import INTERRUPTED, read_settings
from onebar.errors import UsageError
from onebar.process.console import progress, say

PLAN = "plan.json"
LEARNING_RATE = 2e-5
"""Less than stage 2's own: what is known already is to stay."""
STEPS = 200
VALID, OF_BARS = 0.1, 0.5
"""Share of the days that is kept back; with a click ranker, which learns from that part."""


def refresh(
    archive: Annotated[Path, typer.Argument(help="A directory that `onebar archive` writes.")],
    out: Annotated[Path, typer.Option(help="The checkpoint directory to write.")],
    init: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint to go on from (`shipped`: the package's); the registry's current "
            "one if not given."
        ),
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(help="The registry; ONEBAR_REGISTRY if not given.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add what comes out to the registry; prints its name.")
    ] = False,
    days: Annotated[
        float, typer.Option(min=0.01, help="How many days before the archive's last impression.")
    ] = 3.0,
    skip: Annotated[
        float, typer.Option(min=0, help="Days at the end that are left out, to compare on.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Most steps.")] = STEPS,
    batch_size: Annotated[int, typer.Option(min=1, help="Lists in a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = LEARNING_RATE,
    clicks: Annotated[
        bool,
        typer.Option(help="Grow the click ranker anew, where the checkpoint has one."),
    ] = True,
    most: Annotated[
        int | None,
        typer.Option(min=100, help="Most impressions that the click ranker learns from."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    device: Annotated[
        str, typer.Option(help="`cpu`, or `auto` for a GPU where there is one.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a CPU.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of stage 2."),
    ] = None,
) -> None:
    """Go on with list-wise training on the last days of an archive, and with what people tap.

    The days become a dataset, of which the last tenth is kept back: the weights that do best on it
    are written, and none are where no step does better. What the model could say, its lexicon,
    ranker and floor go along. A click ranker learns from what is kept back, the last half then:
    what was asked lately comes into its book, and its trees grow anew, unless those before are
    better. Interrupted, the same command goes on with the same days. Whether it may serve is
    another question: `onebar models promote --gate`.

    Example: onebar train refresh archive --out checkpoints/today --days 3 --skip 1 --add
    """
    settings = read_settings()
    where = registry or settings.registry
    if add and where is None:
        raise UsageError("--add wants a registry: --registry or ONEBAR_REGISTRY")
    values: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "threads": threads,
    }
    for text in more or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}")
        values[name] = value
    try:
        made = _refresh(archive, out, _start(init, where), days, skip, values, clicks, most)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    if add:
        from onebar.generator.registry import Registry

        assert where is not None
        name, _ = Registry(where).add(made)
        print(name)
    else:
        print(made)


def _start(init: Path | None, registry: Path | None) -> Path:
    """The checkpoint to go on from. Raises `CheckpointError`, `UsageError`."""
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.generator.registry import Registry

    if init is None and registry is None:
        raise UsageError("say what to go on from: --init, or a registry whose current one it is")
    if init is not None:
        return open_checkpoint(init).path
    assert registry is not None
    return Registry(registry).open_current().path


def _refresh(
    archive: Path,
    out: Path,
    init: Path,
    days: float,
    skip: float,
    values: dict[str, Any],
    clicks: bool,
    most: int | None,
) -> Path:
    from onebar.cli.evaluation.accept import slice_of
    from onebar.generator.checkpoint import CARD as CHECKPOINT_CARD
    from onebar.generator.checkpoint import CLICKS, open_checkpoint
    from onebar.process.files import replace_file
    from onebar.process.logging import configure_logging
    from onebar.training.recipe import train
    from onebar.triggers import CARD

    before = open_checkpoint(init)
    ranked = clicks and before.optional(CLICKS) is not None
    work = out.parent / f".{out.name}.refresh"
    dataset, generator = work / "days", work / "generator"
    work.mkdir(parents=True, exist_ok=True)
    plan = {
        "archive": str(archive.resolve()),
        "init": before.name,
        "days": days,
        "skip": skip,
        "clicks": ranked,
    }
    noted = work / PLAN
    if noted.is_file() and json.loads(noted.read_text()) != plan:
        # Begun from other days or another model: that run is of no use to this one.
        shutil.rmtree(work)
        work.mkdir()
    replace_file(noted, json.dumps(plan).encode())
    if not (dataset / CARD).is_file():
        slice_of(archive, dataset, days, skip=skip, test=0.0, valid=OF_BARS if ranked else VALID)
    # Now that the archive has been read, which says warnings alone.
    configure_logging(read_settings().log_level, json=False)
    made = generator if ranked else out
    if not (made / CHECKPOINT_CARD).is_file() or not ranked:
        curves, facts = out.parent / "curves" / out.name, {"refreshed": plan}
        train("listwise", dataset, made, init=str(init), curves=curves, facts=facts, **values)
    if ranked:
        _grow(dataset, generator, out, most, values["seed"])
    shutil.rmtree(work)
    return out


def _grow(dataset: Path, generator: Path, out: Path, most: int | None, seed: int) -> None:
    """The generator's click ranker anew; as it was, and said so, where there is too little to learn
    from."""
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.learning.clicks import ClicksConfig, FewTapsError, train_clicks
    from onebar.process.files import publish
    from onebar.recommending.loading import open_taste

    config = ClicksConfig(
        dataset=dataset,
        checkpoint=generator,
        out=out,
        beam=open_taste(open_checkpoint(generator)).beam,
        go_on=True,
        most=most,
        seed=seed,
        rows=generator.parent / "rows",
    )
    try:
        with progress("clicks") as update:
            train_clicks(config, lambda phase, share, text: update(share, f"{phase} {text}"))
    except FewTapsError as error:
        say(f"the click ranker stays as it was: {error}")
        publish(generator, out)
