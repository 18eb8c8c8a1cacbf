"""The videos of a log: of each its newest version."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from stream.events import Video
from stream.logs.files import EventLog


class LogVideos(Struct, frozen=True):
    """`newest` has every video's newest version by id, in the order in which they first came;
    `invalid` counts the lines that are no event, and `first_error` says why the first is none."""

    newest: dict[str, Video]
    invalid: int
    first_error: str


def read_videos(path: Path) -> LogVideos:
    """The videos of a log; other events are passed over. Raises `LogError`."""
    newest: dict[str, Video] = {}
    invalid, first_error = 0, ""
    for entry in EventLog(path).entries():
        event = entry.event
        if event is None:
            invalid += 1
            first_error = first_error or f"line {entry.number:,}: {entry.error}"
        elif isinstance(event, Video):
            known = newest.get(event.video_id, event)
            if (event.ts, event.event_id) >= (known.ts, known.event_id):
                newest[event.video_id] = event
    return LogVideos(newest, invalid, first_error)
