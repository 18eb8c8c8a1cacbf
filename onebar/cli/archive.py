"""Keeping the event topics as Parquet."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import (
    INTERRUPTED,
    Format,
    FormatOption,
    JsonOption,
    command_settings,
    open_log,
    print_json,
    read_settings,
    worker_settings,
)
from onebar.process.console import Update, progress, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from stream.archive.card import ArchiveCard
    from stream.archive.writer import ArchiveWriter

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
        float, typer.Option(min=0.1, help="Longest time that a record waits for a flush.")
    ] = 60.0,
    flush_rows: Annotated[
        int, typer.Option(min=1, help="Most records in memory before a flush.")
    ] = 100_000,
    allow_gap: Annotated[
        bool, typer.Option("--allow-gap", help="Go on behind records that Kafka has deleted.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Archive nothing: read every file, and count.")
    ] = False,
    forget: Annotated[
        str | None,
        typer.Option(help="Archive nothing: take everything of this user out of the archive."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the event topics as partitioned Parquet, each record exactly once.

    Goes on where the archive ends. Without --follow it stops at the end the topics have now.
    Interrupted, it keeps what it had; exit status 130, but 0 with --follow.

    Example: onebar archive --out archive --follow

    Example: onebar archive --out archive --log feed.jsonl.zst

    Example: onebar archive --out archive --forget u7
    """
    if sum((follow, log is not None, check, forget is not None)) > 1:
        raise typer.BadParameter("expected one of --follow, --log, --check and --forget, not two")
    settings = worker_settings("archive") if follow else command_settings()
    if forget is not None:
        _forget(out, forget, as_json)
        return
    if check:
        card, added = _check(out)
    elif log is not None:
        card, added = _log(out, log, format, flush_rows)
    else:
        card, added = _topics(settings, out, follow, allow_gap, flush_s, flush_rows)
    if as_json:
        counts = dict(sorted(card.counts.items()))
        print_json({"path": str(out), "added": added, "counts": counts, "gaps": card.gaps})
    else:
        print(f"{out}: {added:,} records added, now there are")
        for name, count in sorted(card.counts.items()):
            print(f"{count:>12,}  {name}")


def _forget(out: Path, user_id: str, as_json: bool) -> None:
    from stream.archive.forget import forget
    from stream.events.pseudonyms import Pseudonyms

    user_id = Pseudonyms(read_settings().user_id_key).of(user_id)
    with progress("forgetting") as update:
        removed = forget(out, user_id, lambda fraction: update(fraction, ""))
    if as_json:
        print_json({"path": str(out), "removed": removed})
    else:
        print(f"{out}: {removed:,} records of the user are gone")


def _check(out: Path) -> tuple[ArchiveCard, int]:
    from stream.archive.reader import open_archive

    opened = open_archive(out)
    with progress("check") as update:
        opened.check(lambda done: update(done, ""))
    return opened.card, 0


def _log(out: Path, log: Path, format: Format, flush_rows: int) -> tuple[ArchiveCard, int]:
    from stream.archive.card import CARD
    from stream.archive.reader import open_archive
    from stream.archive.writer import archive_log

    opened = open_log(log, format)
    before = open_archive(out).card.counts if (out / CARD).exists() else {}
    try:
        with progress("archive") as update:
            card = archive_log(
                opened, out, flush_rows=flush_rows, told=lambda done: update(done, "")
            )
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on where {out} ends")
        raise typer.Exit(INTERRUPTED) from None
    return card, sum(card.counts.values()) - sum(before.values())


def _topics(
    settings: Settings, out: Path, follow: bool, allow_gap: bool, flush_s: float, flush_rows: int
) -> tuple[ArchiveCard, int]:
    from stream.archive.writer import ArchiveWriter

    async def run(writer: ArchiveWriter, update: Update) -> tuple[int, bool]:
        """Records added, and whether a signal ended it."""
        from stream.archive.follow import archive_topics
        from stream.workers.metrics import WorkerHealth, serve

        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = WorkerHealth()

        def told(done: int, total: int) -> None:
            if not follow:  # a follower has no end, and says in its log what it does
                update(done / total if total else 1.0, f"{done:,} records")

        async with serve(settings.metrics_host, settings.metrics_port if follow else 0, health):
            added = await archive_topics(
                settings,
                writer,
                stop=stop,
                follow=follow,
                allow_gap=allow_gap,
                flush_s=flush_s,
                flush_rows=flush_rows,
                told=told,
                health=health,
            )
        return added, stop.is_set()

    with ArchiveWriter(out) as writer, progress("archive") as update:
        added, stopped = asyncio.run(run(writer, update))
        card = writer.card
    if stopped and not follow:
        say(f"interrupted after {added:,} records; the same command goes on where {out} ends")
        raise typer.Exit(INTERRUPTED)
    return card, added
