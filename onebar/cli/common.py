"""What the commands share: options, settings, and how a run ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from onebar.process.console import printable, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.logs.files import Log

Result = TypeVar("Result")

INTERRUPTED = 130
PARTIAL = 3
"""Exit status where all was done but for what is named: lines that are no events, letters that were
not sent, processes that did not come."""
DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
"""How a moment is written; all are UTC."""
USAGE = 2


class Format(StrEnum):
    """How a log is written."""

    onebar = "onebar"
    kuaisearch = "kuaisearch"


class Language(StrEnum):
    """What a simulated feed speaks."""

    en = "en"
    zh = "zh"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
FormatOption = Annotated[Format, typer.Option(help="How the log is written.")]
SpeedOption = Annotated[
    str, typer.Option(help="1 is the pace of the log, 60 sixty times that, max no pause at all.")
]
RunDirOption = Annotated[
    Path | None, typer.Option(help="Where the logs of the processes go.", file_okay=False)
]


def run_to_end(work: Coroutine[Any, Any, Result], *, interrupted: int = INTERRUPTED) -> Result:
    """Run to the end. SIGINT, SIGTERM and SIGHUP cancel it: then the exit status is
    `interrupted`."""

    async def guarded() -> Result:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, task.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(interrupted) from None


_warned: set[str] = set()


def warn_of_unknown() -> None:
    """Say which `ONEBAR_*` variables nothing reads, each once: a slip of the pen there is a setting
    that has no effect."""
    if not any(name.startswith("ONEBAR_") for name in os.environ):
        return  # the settings take longer to load than some commands
    from onebar.process.start import unknown_told

    for warning in unknown_told(os.environ):
        if warning not in _warned:
            _warned.add(warning)
            say(f"onebar: {warning}")


def read_settings(**changes: Any) -> Settings:
    """The settings of the environment, with what the command line changes of them. A variable that
    is none is warned of."""
    warn_of_unknown()
    return quiet_settings(**changes)


def quiet_settings(**changes: Any) -> Settings:
    """The same for a worker, which warns in its log."""
    from onebar.settings import Settings

    return Settings(**{name: value for name, value in changes.items() if value is not None})


def command_settings(**changes: Any) -> Settings:
    """`read_settings`, with log lines for people beside what the command itself says: warnings and
    worse, unless the environment asks for more."""
    from onebar.process.logging import configure_logging

    settings = read_settings(**changes)
    configure_logging("warning" if settings.log_level == "info" else settings.log_level, json=False)
    # What Kafka's client complains of is raised as well, and told in one line.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return settings


def worker_settings(worker: str) -> Settings:
    """The settings of the environment, with log lines as of any other worker."""
    from onebar.process.start import begin
    from stream.workers.runtime import quiet_libraries

    settings = quiet_settings()
    begin(settings, worker)
    quiet_libraries()
    return settings


def wants_json(as_json: bool) -> bool:
    """Whether the answer is for a program: it was asked for so, or goes into a pipe."""
    return as_json or not sys.stdout.isatty()


def print_json(data: object) -> None:
    """On one line; what is not a number (NaN) is null, and what a terminal would obey escaped."""
    print(printable(json.dumps(_plain(data), ensure_ascii=False)), flush=True)


def write_json(path: Path, data: object) -> None:
    """For people and programs, indented; the file is there whole or not at all."""
    from onebar.process.files import replace_file

    text = json.dumps(_plain(data), indent=2, ensure_ascii=False) + "\n"
    replace_file(path, text.encode())


def _plain(data: object) -> object:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(data))


def parse_speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"expected a number above 0 or max, got {text!r}")
    return speed


def open_log(path: Path, format: Format) -> Log:
    if format is Format.kuaisearch:
        from stream.logs.kuaisearch import KuaiSearchLog

        return KuaiSearchLog(path)
    from stream.logs.files import EventLog

    return EventLog(path)


def seconds(moment: datetime | None) -> float | None:
    """UTC epoch seconds of a moment as `DAY` reads it."""
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()
