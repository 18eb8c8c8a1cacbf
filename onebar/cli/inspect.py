"""Looking in: state of videos and users, topics, and what is wrong."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.cli.common import (
    JsonOption,
    command_settings,
    print_json,
    run_to_end,
)
from onebar.cli.sections import Whole
from onebar.process.console import printable, say

if TYPE_CHECKING:
    from onebar.settings import Settings

app = typer.Typer()
inspect = typer.Typer(cls=Whole, help="What is known of a video or a user.", no_args_is_help=True)
topics = typer.Typer(cls=Whole, help="Kafka topics.", no_args_is_help=True)
app.add_typer(inspect, name="inspect")
app.add_typer(topics, name="topics")


@inspect.command("video")
def inspect_video(
    video_id: Annotated[str, typer.Argument(help="The video.")], as_json: JsonOption = False
) -> None:
    """What is known of a video: its text, anchors (and why which is held back), counters, cached
    queries.

    Example: onebar inspect video v42 --json
    """
    found = run_to_end(_video(command_settings(), video_id))
    if found is None:
        say(f"onebar: nothing is known of video {video_id!r}")
        raise typer.Exit(1)
    _show(found, as_json)


@inspect.command("user")
def inspect_user(
    user_id: Annotated[str, typer.Argument(help="The user.")], as_json: JsonOption = False
) -> None:
    """What is known of a user: the newest queries.

    Example: onebar inspect user u7
    """
    found = run_to_end(_user(command_settings(), user_id))
    if found is None:
        say(f"onebar: nothing is known of user {user_id!r}")
        raise typer.Exit(1)
    _show(found, as_json)


async def _video(settings: Settings, video_id: str) -> dict[str, Any] | None:
    import msgspec

    from feature_store.opening import cache_beside, open_live_store
    from onebar.gating.follow import RuleFollower
    from onebar.gating.gate import about_of, own_anchors
    from onebar.recommending.loading import open_gate

    store = await open_live_store(settings)
    cache = cache_beside(store, settings)
    gate = open_gate(settings)
    try:
        await RuleFollower(store, gate).look()
        [features] = await store.features([(video_id, None)])
        anchors = await store.anchors(video_id)
        counts = await store.counts(video_id)
        [lookup] = await cache.lookup([(video_id, None)])
    finally:
        await store.close()
    if not features.known and not counts and not anchors:
        return None
    about, now, own = about_of(video_id, features), time.time(), own_anchors(anchors)
    bar = gate.barred(about, now)
    held = {
        anchor.query: {"reason": why.reason, "detail": why.detail}
        for anchor in anchors
        if (why := bar or gate.judge(anchor.query, about, now, anchors=own)) is not None
    }
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "video_id": video_id,
            "text": features.text,
            "anchors": anchors,
            "held_back": held,
            "counts": counts,
            "cached": None if lookup.video is None else lookup.video.result(),
        }
    )
    return found


async def _user(settings: Settings, user_id: str) -> dict[str, Any] | None:
    import msgspec

    from feature_store.opening import open_live_store
    from stream.events.pseudonyms import Pseudonyms

    user_id = Pseudonyms(settings.user_id_key).of(user_id)
    store = await open_live_store(settings)
    try:
        history = await store.history(user_id)
    finally:
        await store.close()
    if not history:
        return None
    found: dict[str, Any] = msgspec.to_builtins({"user_id": user_id, "history": history})
    return found


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {key}: {inner}")
        elif isinstance(value, list):
            print(f"{name}:")
            for inner in value:
                print("  " + "  ".join(f"{key}={part}" for key, part in inner.items()))
        else:
            print(f"{name}: {value}")


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
    table = not as_json and sys.stdout.isatty()
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
