"""The registry of checkpoints: what is there, what serves, what served before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import JsonOption, command_settings, print_json, write_json
from onebar.cli.sections import Whole
from onebar.errors import UsageError
from onebar.process.console import say

if TYPE_CHECKING:
    from onebar.evaluation.comparing.acceptance import Acceptance
    from onebar.generator.registry import RegisteredCheckpoint, Registry

models = typer.Typer(
    cls=Whole,
    help="Checkpoints in a registry: add, list, promote, roll back, remove.",
    no_args_is_help=True,
)

RegistryOption = Annotated[
    Path | None, typer.Option("--registry", help="The registry; ONEBAR_REGISTRY if not given.")
]
NameArgument = Annotated[str, typer.Argument(help="A checkpoint's name, as `list` prints it.")]


@models.command("list")
def models_list(
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file, too.")] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """The checkpoints of the registry, the newest first; a star marks the current one.

    The exit status is 1 where the current one is damaged or gone.

    Example: onebar models list --verify
    """
    from onebar.generator.registry import RegistryError

    opened = _open(registry)
    entries = opened.entries(verify=verify)
    current = problem = None
    try:
        current = opened.current()
    except RegistryError as error:
        problem = str(error)
    if as_json:
        found = [_entry(each) for each in entries]
        print_json({"current": current, "problem": problem, "models": found})
    else:
        for each in entries:
            print(_line(each))
        if not entries:
            print("no checkpoints yet: `onebar models add CHECKPOINT`")
        if problem:
            say(f"onebar: {problem}")
    if problem or any(each.problem for each in entries if each.current):
        raise typer.Exit(1)


@models.command("add")
def models_add(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint directory to copy in.")],
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a checkpoint into the registry, verified, under the name that hashes its content.

    It serves nobody until it is promoted. The registry is made where there is none.

    Example: onebar models add checkpoints/mine --registry /srv/onebar/models
    """
    name, new = _open(registry).add(checkpoint)
    if as_json:
        print_json({"name": name, "added": new})
    else:
        print(name)
        if not new:
            say(f"{name} was there already")


@models.command("promote")
def models_promote(
    name: NameArgument,
    registry: RegistryOption = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate", help="Only where it is no worse than the current one on a replayed slice."
        ),
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option(help="With --gate: the dataset whose test part is the slice.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="With --gate: the archive whose last days are the slice.")
    ] = None,
    days: Annotated[
        float, typer.Option(min=0.01, help="Of --archive: how many days before its last event.")
    ] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="Most impressions of the slice.")] = 5000,
    max_taps: Annotated[
        float, typer.Option(min=0, help="Part of the taps an impression (IPS) that may be lost.")
    ] = 0.05,
    max_rejects: Annotated[
        float, typer.Option(min=0, help="Share of impressions that may lose their queries.")
    ] = 0.02,
    max_unsafe: Annotated[
        float,
        typer.Option(min=0, help="More videos that must carry none but get some, a share."),
    ] = 0.0,
    max_language: Annotated[
        float, typer.Option(min=0, help="More queries in another script than the video, a share.")
    ] = 0.01,
    max_grounding: Annotated[
        float, typer.Option(min=0, help="More words that the evidence does not have, a share.")
    ] = 0.02,
    max_latency: Annotated[
        float, typer.Option(min=0, help="Times as long that a prompt may take.")
    ] = 1.5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Write what was found as JSON, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Have every worker and API that follows the registry go on to this checkpoint.

    It is hashed, loaded and asked one prompt first; if that fails, nothing changes.

    With --gate it is compared first with the one that is current, on impressions of a log that
    neither was trained on: where taps, rejections, what must not be shown, language, grounding or
    latency got worse than allowed, it is refused, each reason is told, and the exit status is 1. A
    timer can run it (docs/models.md).

    Example: onebar models promote demo-1a2b3c4d

    Example: onebar models promote demo-1a2b3c4d --gate --archive archive --days 1 --json
    """
    opened = _open(registry)
    found: Acceptance | None = None
    if gate:
        from onebar.cli.evaluation.accept import accepted
        from onebar.evaluation.comparing.acceptance import Bounds

        if (dataset is None) == (archive is None):
            raise UsageError("--gate compares on a slice: name --dataset or --archive")
        current = opened.current()
        if current not in (None, name):
            bounds = Bounds(
                taps=max_taps,
                rejects=max_rejects,
                unsafe=max_unsafe,
                language=max_language,
                grounding=max_grounding,
                latency=max_latency,
            )
            found = accepted(
                opened.open(current).path,
                opened.open(name).path,
                dataset=dataset,
                archive=archive,
                days=days,
                limit=limit,
                bounds=bounds,
                threads=threads,
            )
            if report is not None:
                write_json(report, found)
            if not as_json:
                print_acceptance(found)
            if not found.accepted:
                if as_json:
                    print_json({"current": current, "promoted": False, "gate": found})
                else:
                    say(f"{name} is refused; {current} stays current")
                raise typer.Exit(1)
        else:
            say("there is nothing to compare with: " + ("it is current" if current else "none is"))
    elif dataset is not None or archive is not None or report is not None:
        raise UsageError("--dataset, --archive and --report are for --gate")
    new = opened.promote(name)
    if as_json:
        print_json({"current": name, "promoted": new, **({"gate": found} if found else {})})
    else:
        print(f"{name} is current" if new else f"{name} is current, as it was")


def print_acceptance(found: Acceptance) -> None:
    """A line a check."""
    print(f"current   {found.current}\ncandidate {found.candidate}")
    print(f"{found.shadow.triggers:,} impressions, {found.shadow.clicks:,} with a tap")
    for name, check in found.checks.items():
        print(f"  {'ok ' if check.passed else 'NO '} {name:10} {check.reason}")


@models.command("rollback")
def models_rollback(registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """Go back to the checkpoint that was current before; twice goes back by two.

    Example: onebar models rollback
    """
    name = _open(registry).rollback()
    if as_json:
        print_json({"current": name})
    else:
        print(f"{name} is current again")


@models.command("remove")
def models_remove(
    name: NameArgument, registry: RegistryOption = None, as_json: JsonOption = False
) -> None:
    """Delete a checkpoint that is not current.

    Example: onebar models remove demo-1a2b3c4d
    """
    _open(registry).remove(name)
    if as_json:
        print_json({"removed": name})
    else:
        print(f"{name} is gone")


def _open(path: Path | None) -> Registry:
    from functools import partial

    from onebar.generator.registry import Registry
    from onebar.recommending.loading import prove

    settings = command_settings()
    path = path or settings.registry
    if path is None:
        raise typer.BadParameter("name a registry with --registry or ONEBAR_REGISTRY")
    return Registry(path, prove=partial(prove, engine=settings.engine, k=settings.k))


def _entry(entry: RegisteredCheckpoint) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": entry.name,
        "current": entry.current,
        "problem": entry.problem,
        "promoted_at": entry.promoted_at,
    }
    if entry.card is not None:
        found |= {
            "preset": entry.card.preset,
            "created_at": entry.card.created_at,
            "bytes": entry.bytes,
            "training": entry.card.training,
        }
    return found


def _line(entry: RegisteredCheckpoint) -> str:
    star = "*" if entry.current else " "
    if entry.card is None:
        return f"{star} {entry.name:24} {entry.problem}"
    promoted = "never promoted"
    if entry.promoted_at is not None:
        promoted = f"promoted {time.strftime('%Y-%m-%d %H:%M', time.gmtime(entry.promoted_at))}Z"
    made = entry.card.created_at[:16].replace("T", " ")
    return f"{star} {entry.name:24} {entry.bytes / 1e6:8.1f} MB  made {made}Z  {promoted}"
