"""Looking in: what is known, what runs, what is wrong, topics."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import (
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
    wants_json,
)
from onebar.cli.inspecting import request, subjects
from onebar.cli.sections import Whole
from onebar.process.console import printable

if TYPE_CHECKING:
    from onebar.settings import Settings

app = typer.Typer()
inspect = typer.Typer(
    cls=Whole, help="What is known of a video, a user or an answer.", no_args_is_help=True
)
inspect.add_typer(subjects.app)
inspect.add_typer(request.app)
topics = typer.Typer(cls=Whole, help="Kafka topics.", no_args_is_help=True)
app.add_typer(inspect, name="inspect")
app.add_typer(topics, name="topics")


@app.command()
def doctor(
    as_json: JsonOption = False,
    api_url: Annotated[
        str | None, typer.Option("--api", help="An API to ask too, http://HOST:PORT.")
    ] = None,
) -> None:
    """What is reachable, what is wrong, what to do. Exit status 1 when something is wrong.

    Example: onebar doctor --api http://127.0.0.1:8080
    """
    from onebar.stack.doctor.examination import examine

    settings = command_settings()
    findings = run_to_end(examine(settings, api_url))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            print(f"{finding.mark:4} {finding.name:13} {finding.found}")
            if finding.advice and finding.mark != "ok":
                print(f"     {'':13} → {finding.advice}")
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def status(
    as_json: JsonOption = False,
    api_url: Annotated[
        str | None, typer.Option("--api", help="The API, where it is not at ONEBAR_API_PORT here.")
    ] = None,
    watch: Annotated[
        float | None, typer.Option(min=0.5, help="Again every so many seconds, until Ctrl-C.")
    ] = None,
) -> None:
    """What runs, how far behind it is, and with what: workers, lag, dead letters, the state, Redis,
    the checkpoint, where answers come from. A table on a terminal, else JSON, one object a line.
    Exit status 1 where something is missing.

    Example: onebar status --watch 5

    Example: onebar status --json
    """
    settings = command_settings()
    scheme = "http" if settings.api_tls_certificate is None else "https"
    host = settings.api_host
    if host in ("0.0.0.0", "::"):  # nosec B104
        host = "127.0.0.1"
    url = api_url or f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
    table = not wants_json(as_json)
    if watch is None:
        found = run_to_end(_told(settings, url, table))
        if not found:
            raise typer.Exit(1)
        return
    run_to_end(_watched(settings, url, table, watch), interrupted=0)


async def _told(settings: Settings, url: str, table: bool) -> bool:
    from onebar.stack.status import rows
    from onebar.stack.status import status as ask

    found = await ask(settings, url)
    if table:
        for name, said in rows(found):
            print(f"{name:13} {printable(said)}")
    else:
        print_json(found)
    return found.well


async def _watched(settings: Settings, url: str, table: bool, every_s: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from onebar.stack.status import rows
    from onebar.stack.status import status as ask

    if not table:
        while True:
            await _told(settings, url, table)
            await asyncio.sleep(every_s)
    with Live(auto_refresh=False, screen=False) as live:
        while True:
            found = await ask(settings, url)
            lines = [f"{name:13} {printable(said)}" for name, said in rows(found)]
            live.update(Text("\n".join([*lines, "", time.strftime("%H:%M:%S")])), refresh=True)
            await asyncio.sleep(every_s)


@topics.command("create")
def topics_create(as_json: JsonOption = False) -> None:
    """Create the topics that are missing, with their settings. Others are left as they are.

    Example: ONEBAR_PARTITIONS=12 ONEBAR_REPLICATION_FACTOR=3 onebar topics create
    """
    from stream.kafka.topics import ensure_topics

    settings = command_settings()
    created = run_to_end(ensure_topics(settings))
    if as_json:
        print_json({"created": created})
    else:
        print("created: " + ", ".join(created) if created else "all topics are there")
