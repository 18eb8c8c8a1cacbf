"""What an archive has of one answer, and of what it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream.answers.placed import Placed
from stream.archive.card import is_flushed
from stream.archive.reader import Archive
from stream.archive.schema import POSITION, event_schema
from stream.events import InvalidEventError, from_object

OF_ANSWERS = ("impression", "exposure", "click", "engagement")
OF_PAIRS = ("video", "removal", "search", "exposure", "click", "engagement", "deletion")


def of_request(archive: Archive, request_id: str) -> list[Placed]:
    """The impressions, exposures, clicks and engagements of an answer, by time."""
    import pyarrow.dataset as ds

    found = [
        placed
        for kind in OF_ANSWERS
        for placed in _rows(archive, kind, ds.field("request_id") == request_id)
    ]
    return sorted(found, key=lambda one: one.event.ts)


def of_pair(archive: Archive, video_id: str, user_id: str | None, until: float) -> list[Placed]:
    """What the log had taken of the video and of the user before `until`."""
    import pyarrow.dataset as ds

    found: list[Placed] = []
    for kind in OF_PAIRS:
        names = event_schema(kind).names
        wanted = None
        if "video_id" in names:
            wanted = ds.field("video_id") == video_id
        if user_id is not None and "user_id" in names:
            mine = ds.field("user_id") == user_id
            wanted = mine if wanted is None else wanted | mine
        if wanted is not None:
            found += _rows(archive, kind, wanted & (ds.field("timestamp") < until))
    return found


def _rows(archive: Archive, kind: str, wanted: Any) -> Iterator[Placed]:
    import pyarrow.dataset as ds

    folder = archive.path / "events" / f"type={kind}"
    files = [path for path in sorted(folder.glob("date=*/*.parquet")) if _fit(path, archive)]
    if not files:
        return
    table = ds.dataset(list(map(str, files)), schema=event_schema(kind)).to_table(filter=wanted)
    for row in table.to_pylist():
        place = {name: row.pop(name) for name in POSITION}
        where = f"{place['topic']}/{place['partition']}@{place['offset']}"
        try:
            event = from_object({"type": kind, **_without_nulls(row)})
        except InvalidEventError:  # written by a version that took it
            continue
        yield Placed(event, place["timestamp"], where)


def _fit(path: Path, archive: Archive) -> bool:
    return not path.name.startswith(".") and is_flushed(path, archive.card)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
