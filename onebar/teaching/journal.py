"""What a teacher said so far, in a file: an interrupted run goes on from it, and a better filter
needs no new answers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

FLUSH_EVERY_S = 2.0
KEPT_CHARS = 4000
"""Of an answer; a list of queries is shorter."""


class Lesson(Struct, frozen=True):
    """One answer, under the digest of what was asked and of whom."""

    key: str
    said: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: str = ""
    """Why the teacher gives none, ever."""


class Journal:
    """Lessons by key, one a line, appended as they come; the disk has them within two seconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Lesson] = {}
        self._file: BinaryIO | None = None
        self._flushed = 0.0
        if path.exists():
            decoder = msgspec.json.Decoder(Lesson)
            with path.open("rb") as file:
                for line in file:
                    try:
                        lesson = decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        continue  # the last line of a run that was killed
                    self._known[lesson.key] = lesson

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Lesson | None:
        return self._known.get(key)

    def add(self, lesson: Lesson) -> None:
        lesson = msgspec.structs.replace(lesson, said=lesson.said[:KEPT_CHARS])
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that was cut off; an empty one is nothing
        self._known[lesson.key] = lesson
        self._file.write(msgspec.json.encode(lesson) + b"\n")
        if time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            self._sync()

    def close(self) -> None:
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed = time.monotonic()
