"""A trend shift and a cold start before real users' stand-ins, with and without fresh training.

    python benchmarks/loop.py --work .cache/loop            # prints the table of docs/simulator.md
    python benchmarks/loop.py --before 30000 --events 3000 --compared 3000   # whether it goes

1. A log from before the shift; what its users tapped is learned on top of a checkpoint (the shipped
   one, or `--init`): `onebar train clicks`.
2. The trend shifts: a fifth of the things get names that nobody has heard before, come up and lead.
   The model answers simulated users on a local stack (`onebar simulate --policy`), what they did is
   archived, and `onebar train refresh` goes on with it, click ranker and all.
3. New users and new videos, of the same shifted world, before two local stacks: one serves the old
   model, one the refreshed one, both beginning with nothing cached and no behaviour; and before the
   policies to compare with that need no server, `cascade` and `oracle`.

Everything is done by the commands that an operator has. What is in `--work` already is not made
again. Prints the third loop's report as Markdown; `--json` as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from onebar.generator.checkpoint import SHIPPED_NAME
from onebar.process.logging import configure_logging
from onebar.settings import Settings
from onebar.stack.local import LocalStack

WORLD = ("--set", "video_zipf=1", "--set", "query_zipf=1", "--set", "fatigue=0.1")
SHIFT = ("--set", "new_things=0.2", "--set", "shift_day=0.01", "--set", "shift=0.5")


DAYS = 2
EVENTS_A_USER = 32
"""Intervals are over users: of many who come a few times they are narrower than of few."""
SHOWABLE_USERS = 1
"""Nobody's privacy is at stake, and few simulated people ask the same after one video."""


def onebar(*arguments: object) -> str:
    """Run a command to its end; what it printed."""
    command = [sys.executable, "-P", "-m", "onebar", *map(str, arguments)]
    variables = os.environ | {"ONEBAR_SHOWABLE_USERS": str(SHOWABLE_USERS)}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=variables
    ).stdout


def base_of(work: Path, options: argparse.Namespace) -> Path:
    """The checkpoint that knows what people tapped before the shift."""
    base = work / "base"
    if base.is_dir():
        return base
    log, archive, data = work / "before.jsonl.zst", work / "before", work / "before-data"
    if not data.is_dir():
        onebar("simulate", "--out", log, "--events", options.before, *WORLD)
        onebar("archive", "--out", archive, "--log", log)
        onebar("dataset", archive, "--out", data)
    onebar("train", "clicks", data, "--init", options.init, "--out", base, "--most", options.most)
    return base


def made_directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


async def shifted(
    work: Path, models: dict[str, Path], others: Sequence[str],
    *, each: int, course: int, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Users of the shifted world before a stack for each model, and before other policies, `each`
    for about so many events; the report."""
    async with AsyncExitStack() as stacks:
        named: list[str] = []
        for name, checkpoint in models.items():
            settings = Settings(checkpoint=checkpoint, showable_users=SHOWABLE_USERS, api_port=0)
            stack = LocalStack(settings, made_directory(work / f"run-{name}"), own_names=True)
            await stacks.enter_async_context(stack)
            named += ["--policy", f"{name}={stack.url}"]
        for policy in others:
            named += ["--policy", policy]
        events = each * (len(models) + len(others))
        users = f"users={events // EVENTS_A_USER}"
        made = ("--events", events, "--days", DAYS, "--set", users, "--set", f"course={course}")
        told = ("--budget-ms", 2000, "--windows", 6, "--out", out, "--json")
        found = await asyncio.to_thread(onebar, "simulate", *named, *made, *WORLD, *SHIFT, *told)
    report: dict[str, Any] = json.loads(found)
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    work = made_directory(options.work)
    base = base_of(work, options)
    log, archive, report = work / "after.jsonl", work / "after", work / "report.json"
    if not log.is_file():
        await shifted(work, {"kept": base}, (), each=options.events, course=0, out=log)
    if not archive.is_dir():
        onebar("archive", "--out", archive, "--log", log)
    fresh = work / "fresh"
    if not fresh.is_dir():
        onebar(
            *("train", "refresh", archive, "--init", base, "--out", fresh, "--days", DAYS),
            *("--steps", options.refresh_steps, "--device", "cpu", "--threads", options.threads),
        )
    if not report.is_file():
        models = {"kept": base, "fresh": fresh}
        out = work / "compared.jsonl"
        others = ("cascade", "oracle")
        found = await shifted(work, models, others, each=options.compared, course=1, out=out)
        report.write_text(json.dumps(found), encoding="utf-8")
    return json.loads(report.read_text("utf-8"))  # type: ignore[no-any-return]


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""

    def bounds(value: dict[str, float], sign: str = "") -> str:
        return f"{value['value']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"

    lines = [
        "| | users | bars | true tap | CTR | new videos | known videos | new words | no query |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['name']} | {each['users']} | {each['bars']:,} | {bounds(each['true_tap'])} "
        f"| {bounds(each['ctr'])} | {each['cold']['true_tap']:.3f} "
        f"| {each['warm']['true_tap']:.3f} | {each['new']['true_tap']:.3f} "
        f"| {each['empty']:.1%} |"
        for each in report["policies"]
    ]
    lines += [
        f"| {less['policy']} less {less['less']} | | | {bounds(less['true_tap'], '+')} "
        f"| {bounds(less['ctr'], '+')} | | | | |"
        for less in report["differences"]
    ]
    lines += ["", "| true tap by day |" + "".join(
        f" {window['day']:.2f} |" for window in report["policies"][0]["windows"]
    )]  # fmt: skip
    lines.append("|---|" + "---|" * len(report["policies"][0]["windows"]))
    for each in report["policies"]:
        taps = "".join(f" {window['true_tap']:.3f} |" for window in each["windows"])
        lines.append(f"| {each['name']} |{taps}")
    return "\n".join(lines)


def main() -> None:
    configure_logging("warning", json=False)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cache/loop"), help="where it all lies")
    parser.add_argument("--init", default=SHIPPED_NAME, help="the checkpoint to begin with")
    parser.add_argument("--before", type=int, default=150_000, help="events before the shift")
    parser.add_argument("--most", type=int, default=3000, help="bars that train clicks learns from")
    parser.add_argument("--events", type=int, default=24_000, help="events that are refreshed on")
    parser.add_argument("--compared", type=int, default=12_000, help="events a policy after that")
    parser.add_argument("--refresh-steps", type=int, default=120, help="of train refresh")
    parser.add_argument("--threads", type=int, default=1, help="of train refresh")
    parser.add_argument("--json", action="store_true", help="the whole report")
    options = parser.parse_args()
    report = asyncio.run(measure(options))
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
