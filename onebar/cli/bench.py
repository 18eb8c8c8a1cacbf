"""`onebar bench`: what this machine, and what a running API, achieves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from onebar.cli.common import (
    Format,
    FormatOption,
    JsonOption,
    command_settings,
    open_log,
    print_json,
    run_to_end,
)
from onebar.cli.sections import Whole
from onebar.errors import OneBarError
from onebar.process.console import progress, say

if TYPE_CHECKING:
    from onebar.bench.lookup import LookupFigures
    from onebar.records import Pair
    from stream.events import Event

bench = typer.Typer(
    cls=Whole,
    help="Measure: how fast a checkpoint generates here, and how fast a running API answers.",
    no_args_is_help=True,
)

SIMULATED_EVENTS = 20_000
"""Enough of a simulated feed for videos to have anchors, and users a history."""


class NoPromptsError(OneBarError):
    """A log without one impression of a known video."""


@bench.command("generation")
def bench_generation(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="The checkpoint [default: ONEBAR_CHECKPOINT, else the shipped one]."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="A log whose impressions are the prompts [default: a simulated feed]."),
    ] = None,
    format: FormatOption = Format.onebar,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts to run.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Times that they are run.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores to use [default: all there are].")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, max=64, help="Width of the beam search.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """How fast a checkpoint generates on this machine, and how far that is from the least time
    possible.

    One prompt with all threads on it is what a fresh answer waits for; all prompts at once, side by
    side on a thread each, are what a generator worker gets done.

    Example: onebar bench generation runs/demo/piopd --threads 4
    """
    from onebar.bench.generation import measure_generation
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.recommending.loading import open_configured, open_relevance
    from stream.logs.prompts import prompts_of

    settings = command_settings()
    opened = open_configured(settings) if checkpoint is None else open_checkpoint(checkpoint)
    found = list(
        islice(
            prompts_of(
                _events(log, format),
                opened.card.prompt,
                policy=settings.policy,
                relevance=open_relevance(opened),
            ),
            prompts,
        )
    )
    if not found:
        raise NoPromptsError(f"{log} has no impression of a video that it had told of before")
    cores = _cores()
    if threads is not None:
        if threads > cores:
            raise typer.BadParameter(f"--threads {threads}: there are {cores} cores to use")
        cores = threads
    with progress("generating") as update:
        figures = measure_generation(
            opened,
            found,
            engine=settings.engine,
            threads=cores,
            beams=beams,
            rounds=rounds,
            told=update,
        )
    if as_json:
        print_json(figures)
        return
    print(f"{figures.checkpoint}, {figures.engine}, beam {beams}, {cores} thread(s)")
    print(
        f"  prompts      {figures.prompts} of {figures.source_tokens:.0f} tokens, {rounds} rounds"
    )
    print(f"  one prompt   p50 {figures.p50_ms} ms, p99 {figures.p99_ms} ms")
    print(f"  side by side {figures.per_s} prompts a second")
    if figures.floor_ms is not None:
        times = figures.p50_ms / figures.floor_ms
        print(f"  the floor    {figures.floor_ms} ms a prompt; p50 is {times:.1f} times that")
    print(f"  memory       {figures.resident_mib} MiB resident")


def _events(log: Path | None, format: Format) -> Iterator[Event]:
    """The events of a log that are events, or of a simulated feed."""
    if log is None:
        from stream.simulator import SimulatorConfig, simulate

        yield from simulate(SimulatorConfig(seed=97, events=SIMULATED_EVENTS))
        return
    for entry in open_log(log, format).entries():
        if entry.event is not None:
            yield entry.event


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@bench.command("lookup")
def bench_lookup(
    url: Annotated[
        str | None,
        typer.Argument(help="Where the API is [default: this machine, ONEBAR_API_PORT]."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="A file of VIDEO_ID or VIDEO_ID<tab>USER_ID, a pair a line [default: the latest "
            "videos of the API's feed].",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to ask.")] = 10.0,
    callers: Annotated[int, typer.Option(min=1, max=1000, help="Connections.")] = 16,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, help="Requests a second [default: as fast as they are answered]."),
    ] = None,
    budget_ms: Annotated[
        float, typer.Option(min=0, help="Of each request; 0 generates nothing.")
    ] = 0.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="ONEBAR_API_KEY", help="Where the API asks for one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How fast a running API answers `GET /v1/queries`, and from where: cache, model or fallback.

    With `--rate` latencies count from when a request was due, so that falling behind shows.

    Example: onebar bench lookup http://127.0.0.1:8080 --rate 500 --seconds 30
    """
    from onebar.bench.caller import CallError
    from onebar.bench.lookup import measure_lookups

    address = url or f"http://127.0.0.1:{command_settings().api_port}"
    headers = {} if api_key is None else {"X-API-Key": api_key}

    async def ask() -> LookupFigures:
        wanted = await _feed(address, headers) if pairs is None else _pairs(pairs)
        if not wanted:
            told = "its feed is empty: name pairs with --pairs" if pairs is None else "no pairs"
            raise CallError(f"nothing to ask {address} for: {told}")
        paths = [_path(video_id, user_id, budget_ms) for video_id, user_id in wanted]
        with progress("asking") as update:
            return await measure_lookups(
                address,
                paths,
                seconds=seconds,
                callers=callers,
                rate=rate,
                headers=headers,
                told=update,
            )

    try:
        figures = run_to_end(ask())
    except (OSError, ValueError, CallError) as error:
        say(f"onebar: {address} can't be measured: {error}")
        raise typer.Exit(1) from None
    if as_json:
        print_json(figures)
        return
    print(f"{address}: {figures.answers:,} answers, {figures.per_s:,} a second")
    print(
        f"  latency  p50 {figures.p50_ms} ms, p99 {figures.p99_ms} ms, "
        f"longest {figures.longest_ms} ms"
    )
    print("  from     " + ", ".join(f"{name} {count:,}" for name, count in figures.sources.items()))


async def _feed(url: str, headers: dict[str, str]) -> list[Pair]:
    """The latest videos, for nobody in particular."""
    from onebar.bench.caller import Caller

    async with Caller(url, headers) as caller:
        feed = await caller.ask(caller.get("/v1/feed?limit=50"))
    return [(video["video_id"], None) for video in feed["videos"]]


def _pairs(path: Path) -> list[Pair]:
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines() if line]
    return [(line[0], line[1] if len(line) > 1 and line[1] else None) for line in lines]


def _path(video_id: str, user_id: str | None, budget_ms: float) -> str:
    asked = {"video_id": video_id, "budget_ms": f"{budget_ms:g}"}
    if user_id is not None:
        asked["user_id"] = user_id
    return f"/v1/queries?{urlencode(asked)}"
