"""Simulated feeds: a log in a file, or users before a running API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import (
    JsonOption,
    Language,
    command_settings,
    print_json,
    run_to_end,
    write_json,
)
from onebar.errors import UsageError
from onebar.process.console import progress, say

if TYPE_CHECKING:
    from onebar.evaluation.metrics import Interval
    from stream.simulator import SimulatorConfig
    from stream.simulator.loop import LoopReport
    from stream.simulator.loop.run import Record

app = typer.Typer()


@app.command()
def simulate(
    out: Annotated[
        Path | None,
        typer.Option(help="The log to write; .gz and .zst compress. Not needed with --policy."),
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="How many events.")] = 100_000,
    lang: Annotated[Language, typer.Option(help="What the feed speaks.")] = Language.en,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and options, same bytes.")] = 1,
    days: Annotated[float, typer.Option(help="Over how many days.")] = 7.0,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of the world (docs/simulator.md), for instance --set "
            "video_zipf=1; more than one may be given.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]URL",
            help="Close the loop: ask this API what to show, tap by the hidden truth, and tell it. "
            "`cascade` and `oracle` are policies without a server. Several share the users, each "
            "user always with the same one, and are compared with the first.",
        ),
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, max=64, help="Queries in the bar.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(min=0.0, help="What an answer may take.")
    ] = None,
    turn: Annotated[int, typer.Option(min=1, max=256, help="Bars asked for at once.")] = 32,
    windows: Annotated[
        int, typer.Option(min=1, max=1000, help="Stretches of time that are told apart.")
    ] = 12,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONEBAR_API_KEY", help="Where the API asks for one.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the log of a simulated e-commerce feed, and its hidden truth beside it; or, with
    --policy, let its users loose on a running API.

    The truth (intent of each video, relevance of each query) is for evaluation only.

    With --policy the simulated days end now, and pass as fast as the API answers. Users, videos and
    events get ids of this run's own. What comes of it: how often a bar is tapped, by the truth and
    by the taps drawn from it, by source, for new videos and new words, and over time; with
    several policies their differences with 95 % intervals over users.

    Example: onebar simulate --out feed.jsonl.zst --events 1000000 --lang zh --set video_zipf=1

    Example: onebar simulate --policy http://127.0.0.1:8080 --events 20000 --days 1

    Example: onebar simulate --policy new=http://127.0.0.1:8081 --policy old=http://127.0.0.1:8080
    """
    from stream.simulator import config_of

    values: dict[str, Any] = {"seed": seed, "lang": lang.value, "events": events, "days": days}
    for text in more or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}")
        values[name] = value
    if policy:
        values.setdefault("start_ts", time.time() - days * 86400 - 60)
    config = config_of(values)
    if not policy:
        if out is None:
            raise UsageError("say where the log goes (--out), or whom to ask (--policy)")
        _write(config, out, as_json)
        return
    command_settings()
    prefix = f"{uuid.uuid4().hex[:6]}."
    found = run_to_end(
        _close(
            *(config, policy, out, prefix),
            turn=turn, windows=windows, k=k, budget_ms=budget_ms, api_key=api_key,
        )
    )  # fmt: skip
    if report is not None:
        write_json(report, found)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _write(config: SimulatorConfig, out: Path, as_json: bool) -> None:
    from stream.simulator import write_log

    started = time.monotonic()
    events = config.events
    with progress("simulate") as update:
        truth = write_log(
            config, out, progress=lambda done: update(done / events, f"{done:,} events")
        )
    seconds = time.monotonic() - started
    if as_json:
        print_json({"log": str(out), "truth": str(truth), "events": events, "seconds": seconds})
    else:
        print(f"{events:,} events in {out}, their truth in {truth} ({seconds:.1f} s)")


async def _close(
    config: SimulatorConfig,
    policies: Sequence[str],
    out: Path | None,
    prefix: str,
    *,
    turn: int,
    windows: int,
    k: int | None,
    budget_ms: float | None,
    api_key: str | None,
) -> LoopReport:
    from stream.events import encode
    from stream.simulator import truth_path_of
    from stream.simulator.loop import LoopConfig, open_policy, run_loop
    from stream.simulator.loop.turns import LoopWorld
    from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth, encode_record
    from stream.simulator.writer import whole

    opened = [
        open_policy(text, prefix=prefix, k=k, budget_ms=budget_ms, api_key=api_key)
        for text in policies
    ]
    written = None
    with ExitStack() as stack:
        if out is not None:
            write_truth = stack.enter_context(whole(truth_path_of(out)))
            write = stack.enter_context(whole(out))

            def keep(record: Record) -> None:
                if isinstance(record, (VideoTruth, UserTruth, WorldTruth)):
                    write_truth(encode_record(record) + b"\n")
                else:
                    write(encode(record) + b"\n")

            keep(WorldTruth(config))
            written = keep
        update = stack.enter_context(progress("loop"))
        return await run_loop(
            LoopWorld(config),
            opened,
            LoopConfig(windows=windows, turn=turn, prefix=prefix),
            progress=lambda done, text: update(min(1.0, done / config.events), text),
            written=written,
        )


def _print(found: LoopReport) -> None:
    for policy in found.policies:
        print(f"{policy.name}: {policy.bars:,} bars before {policy.users:,} users")
        for model in policy.models:
            print(f"  model            {model}")
        print(f"  true tap         {_with_bounds(policy.true_tap)}")
        print(f"  CTR              {_with_bounds(policy.ctr)}")
        print(f"  without a query  {policy.empty:7.1%}, rejected {policy.rejected:.1%}")
        print(f"  under a sensitive video anything shown  {policy.sensitive_shown:.1%}")
        print(f"  ms a call        {policy.ms_median:.1f}, 99 % within {policy.ms_99:.1f}")
        rows = {**policy.by_source, "new videos": policy.cold, "known videos": policy.warm}
        if policy.new.bars:
            rows["new words"] = policy.new
        for name, share in rows.items():
            if share.bars:
                print(
                    f"  {name:16} {share.bars:7,} bars, true tap {share.true_tap:.3f}, "
                    f"CTR {share.ctr:.3f}"
                )
        print("      day    bars  true tap     CTR   empty distinct  varied    head   drift")
        for each in policy.windows:
            print(
                f"  {each.day:7.2f} {each.bars:7,}  {each.true_tap:8.3f} {each.ctr:7.3f} "
                f"{each.empty:7.3f} {each.distinct:8.3f} {each.varied:7.3f} {each.head:7.3f} "
                f"{each.drift:7.3f}"
            )
    for less in found.differences:
        print(f"{less.policy} less {less.less}")
        print(f"  true tap         {_with_bounds(less.true_tap, '+')}")
        print(f"  CTR              {_with_bounds(less.ctr, '+')}")
    say(f"{found.events:,} events in {found.seconds:.0f} s")


def _with_bounds(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f}  [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"
