"""Keeping the event topics as Parquet."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebar.commands.common import (
    Format,
    FormatOption,
    JsonOption,
    command_settings,
    open_log,
    print_json,
)

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.archive.card import ArchiveCard

app = typer.Typer()


@app.command()
def archive(
    out: Annotated[Path, typer.Option(help="The archive's directory.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what comes, until SIGTERM or Ctrl-C.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option("--log", help="Archive this log instead of Kafka's topics.")
    ] = None,
    format: FormatOption = Format.onebar,
    flush_s: Annotated[
        float, typer.Option(min=0.1, help="Longest time between two flushes while following.")
    ] = 60.0,
    flush_rows: Annotated[
        int, typer.Option(min=1, help="Most records in memory before a flush.")
    ] = 100_000,
    allow_gap: Annotated[
        bool, typer.Option("--allow-gap", help="Go on behind records that Kafka has deleted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep the event topics as partitioned Parquet, each record exactly once.

    Goes on where the archive ends. Without --follow it stops at the end the topics have now.

    Example: onebar archive --out archive --follow
    """
    from stream.archive.writer import ArchiveWriter, archive_log

    settings = command_settings()
    with _Bar() as bar:
        if log is not None:
            opened = open_log(log, format)
            card = archive_log(
                opened, out, flush_rows=flush_rows, told=lambda done: bar.show(done, 1)
            )
        else:
            with ArchiveWriter(out) as writer:
                asyncio.run(
                    _topics(settings, writer, follow, allow_gap, flush_s, flush_rows, bar.show)
                )
                card = writer.card
    _tell(card, out, as_json)


async def _topics(
    settings: Settings,
    writer: Any,
    follow: bool,
    allow_gap: bool,
    flush_s: float,
    flush_rows: int,
    told: Any,
) -> None:
    from stream.archive.follow import archive_topics

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await archive_topics(
        settings,
        writer,
        stop=stop,
        follow=follow,
        allow_gap=allow_gap,
        flush_s=flush_s,
        flush_rows=flush_rows,
        told=told,
    )


def _tell(card: ArchiveCard, out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(out), "counts": card.counts, "gaps": card.gaps})
        return
    for name, count in sorted(card.counts.items()):
        print(f"{count:>12,}  {name}")
    print(out)


class _Bar:
    """How far it is, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("archiving"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def show(self, done: float, total: float) -> None:
        self._bar.update(self._task, completed=done, total=total or None)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
