"""The local stack, and each of its workers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import (
    Format,
    FormatOption,
    JsonOption,
    Language,
    RunDirOption,
    SpeedOption,
    command_settings,
    open_log,
    parse_speed,
    print_json,
    quiet_settings,
    run_to_end,
)
from onebar.process.console import say

app = typer.Typer()


@app.command()
def demo(
    check: Annotated[
        bool, typer.Option("--check", help="No page: replay, compare, measure, end.")
    ] = False,
    as_json: JsonOption = False,
    log: Annotated[
        Path | None, typer.Option(help="A log to feed instead of a simulated one.")
    ] = None,
    format: FormatOption = Format.onebar,
    lang: Annotated[Language, typer.Option(help="What the simulated feed speaks.")] = Language.en,
    events: Annotated[int, typer.Option(min=1, help="Events to simulate.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another feed.")] = 1,
    speed: SpeedOption = "max",
    rate: Annotated[
        float, typer.Option(min=0, help="Live events a second once the log is in.")
    ] = 20.0,
    port: Annotated[int | None, typer.Option(help="Port of the page.")] = None,
    run_dir: RunDirOption = None,
) -> None:
    """The whole path on this machine: servers, workers, a feed, and a page. Ctrl-C ends it.

    Uses ONEBAR_KAFKA_BOOTSTRAP and ONEBAR_REDIS_URL where they are set, with topics and keys of
    its own; else starts embedded servers (extra `local`). Prints the file of variables that points
    any other `onebar` command at them.

    With --check there is no page: the log is replayed, the state compared with a clean fold of
    the log, the API asked for a sample; exit status 0 only if all of it is right.

    Example: onebar demo --lang zh

    Example: onebar demo --check --json
    """
    from onebar.stack.demo import Demo
    from onebar.stack.run_directory import run_directory

    settings = command_settings(api_port=port)
    pace = parse_speed(speed)
    given = None if log is None else open_log(log, format)
    with run_directory(run_dir) as directory:
        the_demo = Demo(
            settings, directory, log=given, lang=lang.value, events=events, seed=seed, say=say
        )
        if not check:
            run_to_end(the_demo.show(speed=pace, rate=rate), interrupted=0)
            return
        report, problems = run_to_end(the_demo.check())
    for problem in problems:
        say(problem)
    if as_json:
        print_json(report)
    else:
        for name in report.__struct_fields__:
            print(f"{name:18} {getattr(report, name)}")
    if problems:
        raise typer.Exit(1)


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    run_dir: RunDirOption = None,
) -> None:
    """Servers, stream worker, generator and API on this machine, until Ctrl-C. Feeds nothing.

    Prints the variables that point any other `onebar` command at them.

    Example: onebar up --port 8080
    """
    from onebar.stack.run_directory import run_directory
    from onebar.stack.up import stay_up

    settings = command_settings(api_port=port)
    with run_directory(run_dir) as directory:
        run_to_end(stay_up(settings, directory, say), interrupted=0)


@app.command()
def stream() -> None:
    """Fold videos and behaviours from Kafka into Redis, until SIGTERM.

    Example: ONEBAR_KAFKA_BOOTSTRAP=kafka:9092 onebar stream
    """
    from stream.workers.stream import main as run_worker

    raise typer.Exit(run_worker())


@app.command()
def generator() -> None:
    """Generate queries for impressions, into the cache and a topic, until SIGTERM.

    Example: ONEBAR_CHECKPOINT=checkpoints/mine onebar generator
    """
    from stream.workers.generator import main as run_generator

    raise typer.Exit(run_generator())


@app.command()
def neighbors() -> None:
    """Give every video the anchors of those near it, until SIGTERM (docs/embedding.md).

    Example: ONEBAR_EMBEDDER=embedders/march/all ONEBAR_INDEX=index onebar neighbors
    """
    from stream.workers.neighbors import main as run_neighbors

    raise typer.Exit(run_neighbors())


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Answer HTTP, until SIGTERM.

    Example: onebar api --port 8080
    """
    from api.server import serve

    serve(quiet_settings(api_host=host, api_port=port))
