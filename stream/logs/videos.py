"""The videos of a log: of each its newest version, unless it was removed."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from stream.events import Removal, Video
from stream.logs.files import EventLog


class LogVideos(Struct, frozen=True):
    """`newest` has the newest version of every video that is not removed, by id, in the order in
    which they came; `invalid` counts the lines that are no event, and `first_error` says why the
    first is none."""

    newest: dict[str, Video]
    invalid: int
    first_error: str


def read_videos(path: Path) -> LogVideos:
    """The videos of a log; other events are passed over. Raises `LogError`."""
    newest: dict[str, Video | Removal] = {}
    invalid, first_error = 0, ""
    for entry in EventLog(path).entries():
        event = entry.event
        if event is None:
            invalid += 1
            first_error = first_error or f"line {entry.number:,}: {entry.error}"
        elif isinstance(event, Video | Removal):
            known = newest.get(event.video_id, event)
            if (event.ts, event.event_id) >= (known.ts, known.event_id):
                newest[event.video_id] = event
    videos = {name: event for name, event in newest.items() if isinstance(event, Video)}
    return LogVideos(videos, invalid, first_error)
