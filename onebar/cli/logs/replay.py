"""Logs replayed into Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer

from onebar.cli.common import (
    PARTIAL,
    Format,
    FormatOption,
    JsonOption,
    SpeedOption,
    command_settings,
    open_log,
    parse_speed,
    print_json,
    run_to_end,
)
from onebar.cli.logs.mapped import open_mapped
from onebar.errors import UsageError
from onebar.process.console import progress, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.logs.files import Log

app = typer.Typer()


@app.command()
def replay(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...", help="Files, compressed or not, - for stdin; or a set's directory."
        ),
    ],
    format: FormatOption = Format.onebar,
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="NAME|FILE",
            help="The rows are of another shape: a mapping's file, or one that comes with OneBar "
            "(see docs/mapping.md; `list` names them).",
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show what --map makes of the first rows; send nothing."),
    ] = False,
    speed: SpeedOption = "max",
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Then wait for the workers, and compare the state with a clean fold."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first line that is no event.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Do not go on where an interrupted run stopped.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="Where to note how far it is [default: beside the log].", dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send the events of logs to Kafka. Interrupted, the same command goes on where it stopped.

    A log is JSON, one event a line or an array of them; what it is and how it is compressed (gzip,
    bzip2, xz, zstd) and encoded is told by its first bytes. A file that holds no events is refused
    before anything is sent. A pipe is read once, and can't be gone on with.

    A line that is no event goes to the dead letters and is counted, the others are sent; with
    --strict it ends there. What is sent again after an interruption has the same event ids and
    counts once.

    --check expects that the namespace holds this log and nothing else. Exit status: 0 every line
    was sent, 3 every line but those that are no events, 1 the log or the check is bad, 130
    interrupted.

    Example: onebar replay clicks.jsonl.gz --speed 60

    Example: onebar replay kuaisearch --format kuaisearch --check

    Example: onebar replay - < clicks.jsonl

    Example: onebar replay ubi.ndjson --map ubi --preview
    """
    from stream.logs.files import EventLog

    settings = command_settings()
    pace = parse_speed(speed)
    opened: list[Log]
    if mapping is None:
        if preview:
            raise UsageError("--preview shows what a mapping makes: name it with --map")
        opened = [open_log(log, format) for log in logs]
    else:
        mapped = open_mapped(logs, mapping, as_json, preview)
        if preview:
            return
        opened = list(mapped)
    if state is not None and len(opened) > 1:
        raise UsageError("--state notes how far one log is; give one, or leave it out")
    for opened_log in opened:
        if opened_log.once and check:
            raise UsageError(f"--check reads {opened_log.path} again; a pipe is read once")
        if isinstance(opened_log, EventLog):
            opened_log.recognize()
    results, differences = run_to_end(
        _replay_all(settings, opened, pace, check, strict, from_start, state)
    )
    total = {
        name: sum(result[name] for result in results)
        for name in ("events", "invalid", "skipped", "invalid_before", "seconds")
    }
    if as_json:
        told = results[0] if len(results) == 1 else {**total, "logs": results}
        print_json(told if differences is None else {**told, "differences": differences})
    else:
        print(
            f"{total['events']:,} events sent in {total['seconds']:.1f} s, "
            f"{total['invalid']:,} lines were none, {total['skipped']:,} were sent before"
        )
        if differences is not None:
            print("\n".join(differences) or "state equals the clean fold: no differences")
    invalid = total["invalid"] + total["invalid_before"]
    named = ", ".join(map(str, logs))
    if invalid and invalid == total["invalid"] + total["events"] + total["skipped"]:
        say(f"onebar: no line of {named} is an event; they are dead letters now")
        raise typer.Exit(1)
    if differences:
        raise typer.Exit(1)
    if invalid:
        say(
            f"onebar: {invalid:,} lines of {named} are no events; they are dead letters now "
            "(onebar dead-letters list)"
        )
        raise typer.Exit(PARTIAL)


async def _replay_all(
    settings: Settings,
    logs: Sequence[Log],
    speed: float | None,
    check: bool,
    strict: bool,
    from_start: bool,
    state: Path | None,
) -> tuple[list[dict[str, Any]], list[str] | None]:
    from stream.events.pseudonyms import Pseudonyms
    from stream.logs import fold_check as checking
    from stream.logs.offline import OfflineFold

    results = [await _replay(settings, log, speed, strict, from_start, state) for log in logs]
    if not check:
        return results, None
    offline = OfflineFold(
        settings.policy,
        future_allowance_s=settings.future_allowance_s,
        pseudonyms=Pseudonyms(settings.user_id_key),
    )
    for log in logs:
        await asyncio.to_thread(offline.add_log, log)
    with progress("workers") as update:
        await checking.wait_for_zero_lag(
            settings, generator=False, on_lag=lambda lag: update(0.0, f"{lag:,} to go")
        )
    return results, await checking.differences(settings, offline.snapshot())


def _not_folded(why: str) -> None:
    say(
        f"onebar: impressions are sent before their videos are known ({why}): does a stream worker "
        "run?"
    )


async def _replay(
    settings: Settings,
    log: Log,
    speed: float | None,
    strict: bool,
    from_start: bool,
    state: Path | None,
) -> dict[str, Any]:
    import msgspec

    from stream.kafka.producer import EventProducer
    from stream.kafka.topics import ensure_topics
    from stream.logs.fold_check import VideosFolded
    from stream.logs.replay import KafkaSink, Replay, Standing, StateFile, state_path

    await ensure_topics(settings)
    producer = EventProducer(settings)

    def kept(file: StateFile | None) -> TypeGuard[StateFile]:
        return file is not None and file.path.exists()

    with progress("replay") as update:

        def show(standing: Standing) -> None:
            update(log.fraction, f"{standing.events:,} events, {standing.invalid:,} invalid")

        file = None if log.once else StateFile(state or state_path(log.path))
        async with producer:
            run = Replay(
                log,
                KafkaSink(producer, VideosFolded(settings, _not_folded)),
                target=f"{settings.kafka_bootstrap}/{settings.topic_prefix}",
                speed=speed,
                strict=strict,
                state=file,
                from_start=from_start,
                on_progress=show,
            )
            if run.standing.position:
                say(f"going on after {run.standing.number:,} lines ({file and file.path})")
            try:
                report = await run.run()
            except BaseException:
                done = run.report(complete=False)
                say(
                    f"stopped after {done.events:,} events were delivered in this run"
                    + (f"; run it again to go on ({file.path})" if kept(file) else "")
                )
                raise
    result: dict[str, Any] = msgspec.to_builtins(report)
    return result
