"""`onebar summarize`: what is seen and heard in videos, as events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onebar.cli.common import INTERRUPTED, JsonOption, command_settings, print_json
from onebar.process.console import progress, say

app = typer.Typer()


@app.command()
def summarize(
    log: Annotated[Path, typer.Argument(help="A log of events; its videos are summarised.")],
    media: Annotated[
        Path, typer.Option(help="A directory with a file for each video: VIDEO_ID.mp4.")
    ],
    out: Annotated[Path, typer.Option(help="The log of changed videos to write.")],
    vision: Annotated[
        str | None,
        typer.Option(help="An image-text-to-text model of transformers: directory or hub name."),
    ] = None,
    speech: Annotated[
        str | None,
        typer.Option(help="A speech recognition model of transformers: directory or hub name."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where finished summaries are kept [default: OUT.cache].")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=32, help="Frames that are looked at.")] = 4,
    sound_s: Annotated[float, typer.Option(min=0, help="Seconds that are listened to.")] = 30.0,
    batch: Annotated[int, typer.Option(min=1, help="Videos a model is given at a time.")] = 4,
    device: Annotated[str, typer.Option(help="`cpu`, or `auto` for a GPU where there is one.")] = (
        "auto"
    ),
    as_json: JsonOption = False,
) -> None:
    """Look at and listen to the videos of a log: what comes of it is M of the evidence.

    Interrupted, the same command goes on. Run again, it looks only at files that are new or have
    changed. Send what it writes with `onebar replay OUT` (docs/summaries.md).

    Example: onebar summarize videos.jsonl --media clips --vision models/vlm --out summaries.jsonl
    """
    from onebar.summaries.models import Summarizer
    from stream.logs.summaries import SummaryCache, find_files, summarize_videos
    from stream.logs.videos import read_videos

    command_settings()
    if vision is None and speech is None:
        raise typer.BadParameter("name a model: --vision, --speech, or both")
    videos, files = read_videos(log).newest, find_files(media)
    try:
        model = Summarizer(vision, speech, device=device)
        with progress("summarising") as update:
            counts = summarize_videos(
                videos,
                files,
                model,
                SummaryCache(cache or out.with_name(out.name + ".cache")),
                out,
                frames=frames,
                sound_s=sound_s,
                batch=batch,
                told=lambda done, total: update(done / total, f"{done:,} of {total:,}"),
            )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(counts)
        return
    for name in counts.__struct_fields__:
        print(f"{name.replace('_', ' '):13} {getattr(counts, name):>10,}")
    print(out)
