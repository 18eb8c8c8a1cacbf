"""A served answer, explained back to what it was made from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import JsonOption, command_settings, print_json, run_to_end, wants_json
from onebar.cli.inspecting.show import Page, ago, moment
from onebar.process.console import Update, progress, say

if TYPE_CHECKING:
    from onebar.settings import Settings
    from onebar.stack.answered import Answered, Behind
    from stream.answers.placed import Placed

app = typer.Typer()

DAY_S = 86400.0
MOST_HELD = 12
"""Candidates that were not shown, of those on the page."""


@app.command("request")
def inspect_request(
    request_id: Annotated[str, typer.Argument(help="The answer's `request_id`.")],
    archive: Annotated[
        Path | None,
        typer.Option(help="Look in this archive, not in Kafka's topics.", file_okay=False),
    ] = None,
    days: Annotated[
        float, typer.Option(min=0, help="How far back topics are read; 0 reads all of them.")
    ] = 7.0,
    as_json: JsonOption = False,
) -> None:
    """Why an answer said what it said: the events that name it, what was shown and what came of it,
    the list it was taken from, the evidence of that moment, the candidates, the model.

    The events are those that your feed sent with the answer's `request_id`. The evidence is made
    anew from the log as it was then; where its digest is that of the answer, the model read exactly
    this. What can't be found any more is said, with what to keep (docs/operations.md). Tables on a
    terminal, else JSON. Exit status 1 where nothing names the request.

    Example: onebar inspect request 5f2d1c0b9a8e7d6c5b4a3928

    Example: onebar inspect request 5f2d1c0b9a8e7d6c5b4a3928 --archive archive --json
    """
    settings = command_settings()
    with progress("looking") as update:
        found = run_to_end(_answered(settings, request_id, archive, days, update))
    if found is None:
        where = str(archive) if archive else "onebar.behaviors and onebar.impressions"
        far = f" of the last {days:g} days" if days and not archive else ""
        say(
            f"onebar: nothing{far} in {where} names the request {request_id!r}. A feed has to send "
            "an answer's request_id with its exposures and clicks. Kafka keeps them as long as the "
            "topics' retention.ms says; `onebar archive --follow` keeps them for good, and "
            "--archive looks there"
            + ("" if archive or not days else "; --days 0 looks at all that Kafka has")
        )
        raise typer.Exit(1)
    if wants_json(as_json):
        print_json(found)
    else:
        _show(found)


async def _answered(
    settings: Settings, request_id: str, archive: Path | None, days: float, update: Update
) -> Answered | None:
    from onebar.stack.answered import answered
    from stream.answers import archived, topics
    from stream.archive.reader import open_archive

    since = time.time() - days * DAY_S if days else 0.0
    if archive is None:
        events = await topics.of_request(settings, request_id, since, update)

        async def of_pair(video_id: str, user_id: str | None, until: float) -> Sequence[Placed]:
            return await topics.of_pair(settings, video_id, user_id, since, until, update)

    else:
        opened = open_archive(archive)
        events = await asyncio.to_thread(archived.of_request, opened, request_id)

        async def of_pair(video_id: str, user_id: str | None, until: float) -> Sequence[Placed]:
            return await asyncio.to_thread(archived.of_pair, opened, video_id, user_id, until)

    if not events:
        return None
    return await answered(settings, request_id, events, of_pair, update)


def _show(found: Answered) -> None:
    page = Page()
    page.title(f"Request {found.request_id}")
    served = found.served
    page.facts(
        [
            ("video", found.video_id),
            ("user", found.user_id or "nobody in particular"),
            ("shown", f"{moment(found.at)} UTC"),
            ("taken from", None if served is None else f"{served.where}, {ago(served.age_s)} old"),
            ("model", found.model if served is None else served.model),
            ("evidence", None if served is None else served.evidence_digest),
        ]
    )
    evidence = found.evidence
    origins = {} if evidence is None else {one.text: one.origins for one in evidence.candidates}
    if found.shown:
        page.heading("Shown")
        page.table(
            ("place", "query", "from", "score", "before that, under this video", "came of it"),
            [
                (
                    one.position,
                    one.query,
                    ", ".join(origins.get(one.query, ())),
                    one.score,
                    _behind(one.behind),
                    ", ".join(one.became) or "nothing",
                )
                for one in found.shown
            ],
            numbers=("place", "score"),
        )
    if evidence is not None:
        page.heading(f"Evidence ({_REBUILT[found.rebuilt]})")
        names = {"T": "T text", "M": "M summary", "A": "A anchors", "H": "H history"}
        page.facts((names[one.field], one.text) for one in evidence.segments)
        anchors = [one for one in evidence.anchors if one.in_prompt]
        if anchors:
            page.table(
                ("anchor", "weight", "from"),
                [(one.query, one.weight, one.source) for one in anchors],
                numbers=("weight",),
            )
        shown = [one for one in evidence.candidates if one.position is not None]
        held = [one for one in evidence.candidates if one.position is None]
        page.heading(f"Candidates of {found.model}, by that evidence and the rules of now")
        page.table(
            ("place", "query", "from", "score", "model", "why not"),
            [
                (
                    one.position,
                    one.text,
                    ", ".join(one.origins),
                    one.score,
                    one.model,
                    f"{one.held or ''} {one.detail}".strip(),
                )
                for one in (*shown, *held[:MOST_HELD])
            ],
            numbers=("place", "score", "model"),
            dim=[False] * len(shown) + [True] * len(held),
        )
        if len(held) > MOST_HELD:
            page.line(f"and {len(held) - MOST_HELD:,} more; --json has them all")
        if evidence.reason:
            page.line(f"nothing would be shown: {evidence.reason}")
    page.heading("Events that name it")
    page.table(
        ("when (UTC)", "type", "event_id", "where"),
        [(moment(one.ts), one.type, one.event_id, one.where) for one in found.events],
    )
    if found.missing:
        page.heading("Not found")
        for one in found.missing:
            page.warning(f"- {one}")


_REBUILT = {
    "exact": "what the model read: made anew from the log, with the answer's digest",
    "near": "made anew from the log; the answer's had another digest",
    "unknown": "made anew from the log, for the moment at which it was shown",
}


def _behind(behind: Behind) -> str:
    counts = (
        (behind.searches, "searched"),
        (behind.clicks, "clicked"),
        (behind.engagements, "engaged"),
        (behind.exposures, "shown"),
    )
    told = ", ".join(f"{what} {count:,}" for count, what in counts if count)
    if behind.users:
        told += f"; {behind.users:,} user{'s' if behind.users > 1 else ''}"
    return told or "nothing"
