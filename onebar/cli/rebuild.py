"""The state built anew from the log, and gone to without a restart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import (
    DAY,
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    seconds,
)
from onebar.cli.sections import Whole
from onebar.errors import UsageError
from onebar.process.console import Update, progress, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.rebuild.run import Plan, Rebuilding, Report, Wanted

rebuild = typer.Typer(cls=Whole, invoke_without_command=True)

RateOption = Annotated[
    float | None, typer.Option("--rate", min=1, help="Take in so many events a second at most.")
]
WarmOption = Annotated[
    int,
    typer.Option(min=0, help="Have so many answers ready, the newest; 0 needs no model here."),
]
SampleOption = Annotated[
    int, typer.Option(min=0, help="Videos and users to compare with the live version.")
]
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-differences", help="Switch though the new version holds something else."
    ),
]
DropOption = Annotated[
    bool | None,
    typer.Option("--drop/--keep", help="What becomes of the version before [default: keep]."),
]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
]


@rebuild.callback()
def rebuild_all(
    ctx: typer.Context,
    to: Annotated[
        str | None, typer.Option(help="Name of the version to fill [default: the next, g2 say].")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=DAY, help="Take behaviours from this time on (UTC), not all."),
    ] = None,
    drop: DropOption = None,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Go to it once it is ready.")
    ] = True,
    accept: AcceptOption = False,
    warm: WarmOption = 100_000,
    sample: SampleOption = 1000,
    rate: RateOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
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
    wanted = _wanted(
        target=to,
        since=seconds(since),
        drop=drop,
        switch=switch,
        warm=warm,
        sample=sample,
        accept_differences=accept,
        per_s=rate,
    )
    _run(wanted, dry_run, as_json)


@rebuild.command("status")
def rebuild_status(as_json: JsonOption = False) -> None:
    """Which version is live, which others there are and what they lack, and who is on which.

    Example: onebar rebuild status
    """
    found = run_to_end(_status(command_settings()))
    if as_json or not sys.stdout.isatty():
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
def rebuild_switch(
    version: Annotated[str, typer.Argument(help="The version to go to; it has been filled.")],
    drop: DropOption = None,
    accept: AcceptOption = False,
    warm: WarmOption = 100_000,
    sample: SampleOption = 1000,
    rate: RateOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go to a version that is there: it takes in what came since, is checked and warmed before.

    Example: onebar rebuild switch g2
    """
    wanted = _wanted(
        target=version,
        kept=True,
        drop=drop,
        warm=warm,
        sample=sample,
        accept_differences=accept,
        per_s=rate,
    )
    _run(wanted, dry_run, as_json)


@rebuild.command("back")
def rebuild_back(
    accept: AcceptOption = False,
    warm: WarmOption = 100_000,
    sample: SampleOption = 1000,
    as_json: JsonOption = False,
) -> None:
    """Go back to the version that was live before, as `switch` does.

    Example: onebar rebuild back
    """
    settings = command_settings()
    previous = run_to_end(_previous(settings))
    if previous is None:
        raise UsageError("no version was live before that is still there")
    wanted = _wanted(
        target=previous, kept=True, warm=warm, sample=sample, accept_differences=accept
    )
    _run(wanted, False, as_json)


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
    if as_json or not sys.stdout.isatty():
        print_json({"version": version, "keys": dropped})
    else:
        print(f"{version} is gone: {dropped:,} keys")


def _wanted(**fields: Any) -> Wanted:
    from stream.rebuild.run import Wanted

    return Wanted(**fields)


def _run(wanted: Wanted, dry_run: bool, as_json: bool) -> None:
    settings = command_settings()
    as_json = as_json or not sys.stdout.isatty()
    if dry_run:
        plan = run_to_end(_within(settings, lambda rebuilding: rebuilding.plan(wanted)))
        print_json(plan) if as_json else _show_plan(plan)
        return
    report = run_to_end(_within(settings, lambda rebuilding: rebuilding.run(wanted)))
    print_json(report) if as_json else _show(report)
    for process in report.missing:
        say(f"onebar: {process} has not come to {report.target}: look at it, or start it anew")
    if report.missing:
        raise typer.Exit(1)


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
