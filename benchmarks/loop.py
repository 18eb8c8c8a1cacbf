"""A trend shift and a cold start before real users' stand-ins, with and without fresh training.

    python benchmarks/loop.py --work .cache/loop            # prints the table of docs/simulator.md
    python benchmarks/loop.py --work .cache/loop --preset demo --steps 2400 --before 400000

1. A log from before the shift, and a model of it (stage 1 alone, `--preset`, `--steps`).
2. The trend shifts: a fifth of the things get names that nobody has heard before, come up and lead.
   The model answers simulated users on a local stack (`onebar simulate --policy`), what they did is
   archived, and `onebar train refresh` goes on with it.
3. New users and new videos, of the same shifted world, before two local stacks: one serves the old
   model, one the refreshed one. Both begin with nothing cached and no behaviour.

Everything is done by the commands that an operator has. What is in `--work` already is not made
again. Prints the third loop's report as Markdown; `--json` as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from onebar.settings import Settings
from onebar.stack.local import LocalStack

WORLD = ("--set", "video_zipf=1", "--set", "query_zipf=1", "--set", "fatigue=0.1")
SHIFT = ("--set", "new_things=0.2", "--set", "shift_day=0.01", "--set", "shift=0.5")


def onebar(*arguments: object) -> str:
    """Run a command to its end; what it printed."""
    command = [sys.executable, "-P", "-m", "onebar", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def base_of(work: Path, options: argparse.Namespace) -> Path:
    """The model of the log from before the shift."""
    base = work / "base"
    if base.is_dir():
        return base
    log, archive, data = work / "before.jsonl.zst", work / "before", work / "before-data"
    if not data.is_dir():
        onebar("simulate", "--out", log, "--events", options.before, *WORLD)
        onebar("archive", "--out", archive, "--log", log)
        onebar("dataset", archive, "--out", data)
    made = ("--preset", options.preset, "--steps", options.steps, "--device", "cpu")
    onebar("train", "sft", data, "--out", base, *made)
    return base


def made_directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


async def shifted(
    work: Path, models: dict[str, Path], options: argparse.Namespace, *, seed: int, out: Path
) -> dict[str, Any]:
    """Users of the shifted world before a stack for each model; the report."""
    async with AsyncExitStack() as stacks:
        named: list[str] = []
        for name, checkpoint in models.items():
            settings = Settings(checkpoint=checkpoint, showable_users=1, api_port=0)
            stack = LocalStack(settings, made_directory(work / f"run-{name}"), own_names=True)
            await stacks.enter_async_context(stack)
            named += ["--policy", f"{name}={stack.url}"]
        made = ("--events", options.events * len(models), "--days", "2", "--seed", seed)
        told = ("--budget-ms", 2000, "--windows", 6, "--out", out, "--json")
        found = await asyncio.to_thread(onebar, "simulate", *named, *made, *WORLD, *SHIFT, *told)
    report: dict[str, Any] = json.loads(found)
    return report


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    work = made_directory(options.work)
    base = base_of(work, options)
    log, archive, fresh = work / "after.jsonl", work / "after", work / "fresh"
    if not log.is_file():
        await shifted(work, {"kept": base}, options, seed=1, out=log)
    if not fresh.is_dir():
        onebar("archive", "--out", archive, "--log", log)
        onebar(
            *("train", "refresh", archive, "--init", base, "--out", fresh, "--days", 2),
            *("--steps", options.refresh_steps, "--learning-rate", "1e-4", "--device", "cpu"),
        )
    # The names of the new things hang on the seed: the same world, other videos and other people.
    return await shifted(
        work, {"kept": base, "fresh": fresh}, options, seed=1, out=work / "compared.jsonl"
    )


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cache/loop"), help="where it all lies")
    parser.add_argument("--preset", default="mini", help="size of the model")
    parser.add_argument("--steps", type=int, default=1500, help="of stage 1")
    parser.add_argument("--refresh-steps", type=int, default=200, help="of train refresh")
    parser.add_argument("--before", type=int, default=150_000, help="events before the shift")
    parser.add_argument("--events", type=int, default=20_000, help="events a policy after it")
    parser.add_argument("--json", action="store_true", help="the whole report")
    options = parser.parse_args()
    report = asyncio.run(measure(options))
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
