"""The state built anew from the log, and gone to without a restart."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from onebar.cli.common import (
    DAY,
    PARTIAL,
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    seconds,
    wants_json,
)
from onebar.cli.sections import Whole
from onebar.errors import UsageError
from onebar.process.console import Update, progress, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.rebuild.run import Plan, Rebuilding, Report

rebuild = typer.Typer(cls=Whole, invoke_without_command=True)


@dataclass(frozen=True)
class Going:
    """How a version is gone to: the options that all commands have which go to one."""

    drop: Annotated[
        bool | None,
        typer.Option("--drop/--keep", help="What becomes of the version before [default: keep]."),
    ] = None
    accept_differences: Annotated[
        bool,
        typer.Option(
            "--accept-differences", help="Switch though the new version holds something else."
        ),
    ] = False
    warm: Annotated[
        int,
        typer.Option(min=0, help="Have so many answers ready, the newest; 0 needs no model here."),
    ] = 100_000
    sample: Annotated[
        int, typer.Option(min=0, help="Videos and users to compare with the live version.")
    ] = 1000
    per_s: Annotated[
        float | None,
        typer.Option("--rate", min=1, help="Take in so many events a second at most."),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False
    as_json: JsonOption = False


def _goes(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `Going`, which it gets as `going`."""
    hints = get_type_hints(Going, include_extras=True)
    shared = [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hint)
        for each, hint in ((each, hints[each.name]) for each in fields(Going))
    ]
    own = signature(command, eval_str=True).parameters.values()

    @wraps(command)
    def taking(**given: Any) -> None:
        going = Going(**{each.name: given.pop(each.name) for each in shared})
        command(**given, going=going)

    together = Signature([*(each for each in own if each.name != "going"), *shared])
    taking.__signature__ = together  # type: ignore[attr-defined]
    taking.__annotations__ = {each.name: each.annotation for each in together.parameters.values()}
    return taking


@rebuild.callback()
@_goes
def rebuild_all(
    ctx: typer.Context,
    to: Annotated[
        str | None, typer.Option(help="Name of the version to fill [default: the next, g2 say].")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=DAY, help="Take behaviours from this time on (UTC), not all."),
    ] = None,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Go to it once it is ready.")
    ] = True,
    *,
    going: Going,
) -> None:
    """Build the state anew from the log, beside the one that serves, and go to it.

    Fills the next version from Kafka, compares a sample of it with the live one, carries over what
    no log holds, makes the answers ready that are ready now, and switches: API, stream workers,
    generators and neighbour workers follow within a second, without a restart. Interrupted, killed
    even, the same command goes on where it was. The version before stays, unless --drop.

    Example: onebar rebuild

    Example: onebar rebuild --since 2026-09-01 --drop

    Example: onebar rebuild --dry-run --json
    """
    if ctx.invoked_subcommand is not None:
        return
    _go(going, to, since=seconds(since), switch=switch)


@rebuild.command("status")
def rebuild_status(as_json: JsonOption = False) -> None:
    """Which version is live, which others there are and what they lack, and who is on which.

    Example: onebar rebuild status
    """
    found = run_to_end(_status(command_settings()))
    if wants_json(as_json):
        print_json(found)
        return
    print(f"live      {found['live']}")
    for name, each in found["versions"].items():
        lacks = sum(each["missing"].values()) if isinstance(each["missing"], dict) else None
        told = "unknown" if lacks is None else f"{lacks:,} records behind"
        how = "filled" if each["filled"] else "not filled yet"
        if each["since"] is not None:
            how += f", behaviours since {datetime.fromtimestamp(each['since'])}"
        print(f"          {name}: {how}, {told}")
    if found["rebuild"] is not None:
        by = f", by {found['holder']}" if found["holder"] else ", by nobody at the moment"
        print(f"rebuild   of {found['rebuild']['target']}, at {found['rebuild']['phase']}{by}")
    for each in found["processes"]:
        pinned = ", pinned to it by ONEBAR_STATE_VERSION" if each["pinned"] else ""
        print(f"{each['kind']:9} {each['host']}:{each['pid']} is on {each['version']}{pinned}")


@rebuild.command("switch")
@_goes
def rebuild_switch(
    version: Annotated[str, typer.Argument(help="The version to go to; it has been filled.")],
    *,
    going: Going,
) -> None:
    """Go to a version that is there: it takes in what came since, is checked and warmed before.

    Example: onebar rebuild switch g2
    """
    _go(going, version, kept=True)


@rebuild.command("back")
@_goes
def rebuild_back(*, going: Going) -> None:
    """Go back to the version that was live before, as `switch` does.

    Example: onebar rebuild back
    """
    previous = run_to_end(_previous(command_settings()))
    if previous is None:
        raise UsageError("no version was live before that is still there")
    _go(going, previous, kept=True)


@rebuild.command("drop")
def rebuild_drop(
    version: Annotated[str, typer.Argument(help="The version to remove; it is not live.")],
    as_json: JsonOption = False,
) -> None:
    """Remove a version, some keys at a time, also one that is not filled to its end.

    Example: onebar rebuild drop g1
    """

    async def work(rebuilding: Rebuilding) -> int:
        return await rebuilding.drop(version)

    dropped = run_to_end(_within(command_settings(), work))
    if wants_json(as_json):
        print_json({"version": version, "keys": dropped})
    else:
        print(f"{version} is gone: {dropped:,} keys")


def _go(
    going: Going,
    target: str | None,
    *,
    kept: bool = False,
    since: float | None = None,
    switch: bool = True,
) -> None:
    from stream.rebuild.run import Wanted

    wanted = Wanted(
        target=target,
        kept=kept,
        since=since,
        drop=going.drop,
        switch=switch,
        warm=going.warm,
        sample=going.sample,
        accept_differences=going.accept_differences,
        per_s=going.per_s,
    )
    settings = command_settings()
    as_json = wants_json(going.as_json)
    if going.dry_run:
        plan = run_to_end(_within(settings, lambda rebuilding: rebuilding.plan(wanted)))
        print_json(plan) if as_json else _show_plan(plan)
        return
    report = run_to_end(_within(settings, lambda rebuilding: rebuilding.run(wanted)))
    print_json(report) if as_json else _show(report)
    for process in report.missing:
        say(f"onebar: {process} has not come to {report.target}: look at it, or start it anew")
    if report.missing:
        raise typer.Exit(PARTIAL)


async def _within(
    settings: Settings, work: Callable[[Rebuilding], Coroutine[Any, Any, Any]]
) -> Any:
    """What `work` does, with its progress shown."""
    from feature_store.opening import open_store
    from stream.rebuild.run import rebuilding

    store = open_store(settings)
    bars = _Bars()
    try:
        async with rebuilding(settings, store, bars) as opened:
            return await work(opened)
    finally:
        bars.close()
        await store.close()


class _Bars:
    """A bar for the phase that is at work."""

    def __init__(self) -> None:
        self._phase = ""
        self._stack = ExitStack()
        self._update: Update | None = None

    def __call__(self, phase: str, fraction: float, text: str) -> None:
        if phase != self._phase or self._update is None:
            self.close()
            self._phase = phase
            self._update = self._stack.enter_context(progress(phase))
        self._update(fraction, text)

    def close(self) -> None:
        self._stack.close()


async def _previous(settings: Settings) -> str | None:
    from feature_store.opening import open_store, versions_beside

    store = open_store(settings)
    try:
        _, journal = await versions_beside(store, settings).look()
        return journal.previous
    finally:
        await store.close()


async def _status(settings: Settings) -> dict[str, Any]:
    import msgspec

    from feature_store.opening import open_store, versions_beside
    from feature_store.versions import Version, at_version
    from onebar.errors import OneBarError
    from stream.rebuild.fill import spans_of
    from stream.rebuild.run import missing

    store = open_store(settings)
    try:
        versions = versions_beside(store, settings)
        live, journal = await versions.look()
        told: dict[str, Any] = {}
        for name, version in ({live: Version(filled=True)} | journal.versions).items():
            lacks: dict[str, int] | str
            try:
                lacks = missing(await spans_of(at_version(settings, name), store.of(name)))
            except OneBarError as error:
                lacks = str(error)
            told[name] = msgspec.to_builtins(version) | {"missing": lacks}
        return {
            "live": live,
            "previous": journal.previous,
            "versions": told,
            "rebuild": msgspec.to_builtins(journal.rebuild),
            "holder": await versions.holder(),
            "processes": msgspec.to_builtins(await versions.processes()),
        }
    finally:
        await store.close()


def _show_plan(plan: Plan) -> None:
    going = "goes on filling" if plan.resumes else "would fill"
    print(f"{going} {plan.target} beside {plan.live}, which serves meanwhile")
    for topic, count in plan.records.items():
        print(f"  {count:,} records of {topic}")
    if not plan.whole_log:
        print("  the log does not have all behaviours: those before are not in it")
    limit = f" of {plan.limit_bytes / 2**20:,.0f}" if plan.limit_bytes else ""
    print(f"  Redis uses {plan.used_bytes / 2**20:,.0f}{limit} MiB now, and holds both for a while")
    print(f"  {len(plan.processes)} processes would follow")
    for each in plan.pinned:
        print(f"  but not {each}: ONEBAR_STATE_VERSION pins it")


def _show(report: Report) -> None:
    print(
        f"{report.target}: {report.events:,} events in {report.fill_s:.1f} s "
        f"({report.events_per_s:,.0f} a second), {report.refused:,} of them can't be read"
    )
    found, warmed = report.checked, report.warmed
    print(
        f"compared with {report.live}: {found.videos:,} videos, {found.users:,} users, "
        f"{found.rules:,} rules; {found.differing:,} differ, {found.moving:,} kept changing"
    )
    print(
        f"ready: {warmed.answered:,} of {warmed.pairs:,} answers, the model was run for "
        f"{warmed.generated:,}; {warmed.neighbors:,} videos' neighbours"
    )
    if not report.switched:
        print(f"{report.live} is live still: onebar rebuild switch {report.target}")
        return
    print(f"{report.target} is live, everyone was there after {report.settle_s:.1f} s")
    if report.dropped:
        print(f"{report.live} is gone: {report.dropped:,} keys")
    else:
        print(f"{report.live} is kept: onebar rebuild back, or onebar rebuild drop {report.live}")
