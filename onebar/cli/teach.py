"""`onebar teach`: a dataset of day zero, from videos and a teacher."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import INTERRUPTED, JsonOption, command_settings, print_json
from onebar.process.console import Update, progress, say

if TYPE_CHECKING:
    from onebar.teaching.lessons import Standing
    from onebar.teaching.teach import Report, Subject
    from onebar.teaching.teacher import Teacher

app = typer.Typer()


@app.command()
def teach(
    videos: Annotated[
        Path, typer.Argument(help="A log of events; its videos are what is taught about.")
    ],
    out: Annotated[Path, typer.Option(help="The dataset directory to write.")],
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible endpoint, for instance http://127.0.0.1:11434. Its key, if "
            "it wants one, is ONEBAR_TEACHER_KEY.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The endpoint's model [default: its only one].")
    ] = None,
    gguf: Annotated[
        Path | None, typer.Option(help="A GGUF file, run here, in place of an endpoint.")
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="A prompt of your own; `onebar teach-prompt` prints ours.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=8, help="Queries a video.")] = 5,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Questions at a time.")] = 4,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a GGUF file; all cores if not given.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Minutes that the teacher may be away.")
    ] = 120.0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that an answer may take.")] = 120.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many videos: to try a prompt.")
    ] = None,
    valid: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the videos.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the videos.")] = 0.1,
    journal: Annotated[
        Path | None, typer.Option(help="Where answers are kept [default: OUT.journal.jsonl].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a teacher what the bar under each video should say, and write a dataset of it.

    For a feed without a log of taps. What it writes goes to `onebar train` and `onebar evaluate`
    as a dataset of clicks does (docs/teaching.md). Interrupted, or while the teacher is away, the
    same command goes on; only new videos, another prompt or another teacher cost anything again.

    Example: onebar teach videos.jsonl --out data/zero --teacher http://127.0.0.1:11434 --model qwen

    Example: onebar teach videos.jsonl --out data/zero --gguf qwen2.5-7b-instruct-q4_k_m.gguf
    """
    from onebar.teaching.journal import Journal
    from onebar.teaching.prompt import DEFAULT, read_prompt
    from onebar.teaching.teach import TeachConfig
    from onebar.teaching.teach import teach as run

    settings = command_settings()
    if (teacher is None) == (gguf is None):
        raise typer.BadParameter("name one teacher: --teacher URL or --gguf FILE")
    asked = read_prompt(prompt or DEFAULT)
    subjects = _subjects(videos, limit)
    kept = Journal(journal or out.with_name(out.name + ".journal.jsonl"))
    try:
        by = _teacher(teacher, settings.teacher_key, model, gguf, workers, threads, timeout)
        with progress("teach") as update:
            report = run(
                subjects,
                by,
                asked,
                kept,
                out,
                TeachConfig(
                    count=count,
                    workers=workers,
                    patience_s=60 * patience,
                    valid=valid,
                    test=test,
                ),
                told=_teller(update),
            )
    except KeyboardInterrupt:
        say(f"interrupted; {len(kept):,} answers are kept in {kept.path}: run it again to go on")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        kept.close()
    if as_json:
        print_json(report)
    else:
        _tell(report)


@app.command("teach-prompt")
def teach_prompt() -> None:
    """The prompt that `onebar teach` asks with: to be copied, changed, and given as --prompt.

    Example: onebar teach-prompt
    """
    from onebar.teaching.prompt import DEFAULT

    print(DEFAULT.read_text("utf-8"), end="")


def _teacher(
    address: str | None,
    key: str,
    model: str | None,
    gguf: Path | None,
    workers: int,
    threads: int | None,
    timeout_s: float,
) -> Teacher:
    if gguf is not None:
        from onebar.teaching.gguf import GGUFTeacher

        say(f"loading {gguf}")
        threads = threads or os.cpu_count() or 1
        return GGUFTeacher(gguf, threads=threads, workers=workers, timeout_s=timeout_s)
    from onebar.teaching.http import HTTPTeacher

    assert address is not None
    return HTTPTeacher(address, model, key=key, timeout_s=timeout_s)


def _subjects(path: Path, limit: int | None) -> list[Subject]:
    from itertools import islice

    from onebar.teaching.teach import Subject
    from stream.events.fold import text_of
    from stream.logs.videos import read_videos

    found = read_videos(path)
    if found.invalid:
        say(f"{found.invalid:,} lines of {path} are no events ({found.first_error})")
    if not found.newest:
        say(f"onebar: {path} holds no video event")
        raise typer.Exit(1)
    return [
        Subject(video.video_id, video.ts, text_of(video))
        for video in islice(found.newest.values(), limit)
    ]


def _teller(update: Update) -> Callable[[Standing], None]:
    """Videos done, tokens spent, time left; or why it stands still."""
    started = time.monotonic()
    away = ""

    def told(standing: Standing) -> None:
        nonlocal away
        if standing.away and not away:
            say(f"the teacher is away: {standing.away}; asking again until it is back")
        elif away and not standing.away:
            say("the teacher is back")
        away = standing.away
        tokens = standing.prompt_tokens + standing.completion_tokens
        parts = [f"{standing.done:,} of {standing.videos:,} videos", f"{tokens:,} tokens"]
        if standing.asked:
            left = standing.videos - standing.done
            parts.append(f"{_duration(left * (time.monotonic() - started) / standing.asked)} left")
        if standing.away:
            parts.append("the teacher is away")
        update(standing.done / max(1, standing.videos), ", ".join(parts))

    return told


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _tell(report: Report) -> None:
    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{number:,} {name}" for name, number in sorted(of.items())) or "none"

    print(f"videos   {counts(report.videos)}")
    print(f"queries  {report.queries:,}; dropped: {counts(report.dropped)}")
    print(
        f"asked    {report.asked:,} times, {report.prompt_tokens:,} tokens read and "
        f"{report.completion_tokens:,} written by {report.teacher} (prompt {report.prompt})"
    )
    if not any(report.videos.get(verdict) for verdict in ("rejected", "sensitive", "risky")):
        say("no video was rejected: a model of this dataset can't learn to reject")
    print(report.path)
