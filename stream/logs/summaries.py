"""Summaries of videos as events: each video again, with what is seen and heard in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import msgspec
import structlog
from msgspec import Struct, structs

from onebar.errors import OneBarError
from onebar.process.files import replace_file
from onebar.summaries.media import Media, MediaError, read_media
from stream.events import NO_JSON, Video, encode

log = structlog.get_logger(__name__)

LATER_S = 0.001
"""How much later than the version it was made of a summarised video's event is. So it replaces that
one, and what the feed has sent since replaces it."""
Told = Callable[[int, int], None]
"""Videos done, out of how many."""


class SummariesError(OneBarError, ValueError):
    """Summaries that can't be made. The text says what is missing."""


class SummaryModel(Protocol):
    """What summarises: `onebar.summaries.models.Summarizer`."""

    name: str

    def summarize(self, media: Sequence[Media]) -> list[tuple[str, str]]:
        """(summary, what is said) of each."""
        ...


class StoredSummary(Struct, frozen=True):
    """One finished summary, under the hash of its file's content and of the model."""

    key: str
    summary: str
    heard: str


class SummaryCounts(Struct, frozen=True, kw_only=True):
    """What became of the videos of a log."""

    videos: int
    without_file: int
    unreadable: int
    reused: int
    """Summarised before, by the same models from the same content."""
    made: int
    changed: int
    """Events written: summaries that the log did not have already."""


class SummaryCache:
    """Summaries by key in a file, one a line, appended as they are made: what an interrupted run
    leaves, and what spares the next one everything that has not changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, StoredSummary] = {}
        if path.exists():
            decoder = msgspec.json.Decoder(StoredSummary)
            for line in path.read_bytes().splitlines():
                try:
                    kept = decoder.decode(line)
                except NO_JSON:  # the last line of a run that was killed
                    continue
                self._kept[kept.key] = kept

    def get(self, key: str) -> StoredSummary | None:
        return self._kept.get(key)

    def add(self, found: Iterable[StoredSummary]) -> None:
        with self._path.open("ab") as file:
            if file.tell():
                file.write(b"\n")  # ends a line that was cut off; an empty one is nothing
            for kept in found:
                self._kept[kept.key] = kept
                file.write(msgspec.json.encode(kept) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def find_files(directory: Path) -> dict[str, Path]:
    """The files of a directory by video id: the name without its suffix, percent-encoded where an
    id holds what a name can't (`a%2Fb.mp4`). Raises `SummariesError`."""
    if not directory.is_dir():
        raise SummariesError(f"{directory} is no directory: expected files named VIDEO_ID.mp4")
    return {unquote(path.stem): path for path in sorted(directory.iterdir()) if path.is_file()}


def summarize_videos(
    videos: Mapping[str, Video],
    files: Mapping[str, Path],
    model: SummaryModel,
    cache: SummaryCache,
    out: Path,
    *,
    frames: int = 4,
    sound_s: float = 30.0,
    batch: int = 4,
    told: Told = lambda done, total: None,
) -> SummaryCounts:
    """Write to `out` an event for each video whose summary the log does not have.

    A file is looked at once, whatever it is called, as long as its content and the models stay the
    same. A file that can't be read is passed over and counted. `out` is there whole or not at all.
    Raises `SummariesError` where no video of the log has a file.
    """
    found = {video_id: files[video_id] for video_id in videos if video_id in files}
    if not found:
        raise SummariesError(
            f"none of the {len(videos):,} videos of the log has a file: expected VIDEO_ID.mp4 or "
            "another suffix"
        )
    settings = f"{model.name}+{frames}+{sound_s:g}"
    keys = {video_id: _key(path, settings) for video_id, path in found.items()}
    todo = {key: found[v] for v, key in keys.items() if cache.get(key) is None}
    done = unreadable = 0
    for chunk in _chunks(todo.items(), batch):
        media: list[tuple[str, Media]] = []
        for key, path in chunk:
            try:
                media.append((key, read_media(path, frames=frames, sound_s=sound_s)))
            except MediaError as error:
                unreadable += 1
                log.warning("media_unreadable", error=str(error))
        if media:
            answers = model.summarize([each for _, each in media])
            cache.add(
                StoredSummary(key, summary, heard)
                for (key, _), (summary, heard) in zip(media, answers, strict=True)
            )
        done += len(chunk)
        told(done, len(todo))
    events = list(_events(videos, keys, cache))
    replace_file(out, b"".join(encode(event) + b"\n" for event in events))
    return SummaryCounts(
        videos=len(videos),
        without_file=len(videos) - len(found),
        unreadable=unreadable,
        reused=len(keys) - sum(key in todo for key in keys.values()),
        made=len(todo) - unreadable,
        changed=len(events),
    )


def _events(
    videos: Mapping[str, Video], keys: Mapping[str, str], cache: SummaryCache
) -> Iterator[Video]:
    """The videos that get something new: a summary, and what is said where they had none."""
    for video_id, key in keys.items():
        video, kept = videos[video_id], cache.get(key)
        if kept is None:
            continue
        told = structs.replace(
            video, summary=kept.summary or video.summary, asr=video.asr or kept.heard
        )
        if told != video:
            yield structs.replace(
                told,
                event_id=f"summary-{_digest(f'{key} {video.event_id}')[:32]}",
                ts=video.ts + LATER_S,
            )


def _key(path: Path, settings: str) -> str:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return _digest(f"{content} {settings}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chunks(items: Iterable[tuple[str, Path]], size: int) -> Iterator[list[tuple[str, Path]]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
