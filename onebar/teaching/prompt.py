"""What a teacher is asked: a text file of turns, which people copy and change.

A line `[system]`, `[user]` or `[assistant]` begins a turn. In the last one, the user's, `{video}`
stands for the video; `{count}` stands for how many queries are wanted, wherever it is written.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import cast

from msgspec import Struct

from onebar.errors import UsageError
from onebar.records import VideoText
from onebar.teaching.teacher import Message, Role

DEFAULT = Path(__file__).parent / "data" / "prompt.txt"
VIDEO = "{video}"
COUNT = "{count}"
SHOWN = (
    ("Title", "title", 200),
    ("Caption", "caption", 400),
    ("Product", "item_title", 200),
    ("On screen", "ocr", 200),
    ("Said", "asr", 300),
    ("Seen", "summary", 300),
    ("Category", "category", 64),
)
"""What a teacher reads of a cleaned video: label, field, and most characters of it."""

_TURN = re.compile(r"^\[(system|user|assistant)\][^\S\n]*\n", re.MULTILINE)


class TeacherPromptError(UsageError, ValueError):
    """A prompt file that asks for nothing. The text says what is missing."""


class TeacherPrompt(Struct, frozen=True):
    """Turns with their places for the video, and the digest of the file that they were in."""

    turns: tuple[Message, ...]
    digest: str

    def about(self, video: VideoText, count: int) -> list[Message]:
        """The conversation about one cleaned video."""
        shown = describe(video)
        return [
            Message(turn.role, turn.content.replace(COUNT, str(count)).replace(VIDEO, shown))
            for turn in self.turns
        ]


def describe(video: VideoText) -> str:
    """What a teacher reads of a cleaned video, a field a line; empty where nothing is said."""
    return "\n".join(
        f"{label}: {value}"
        for label, name, most in SHOWN
        if (value := str(getattr(video, name))[:most].strip())
    )


def read_prompt(path: Path = DEFAULT) -> TeacherPrompt:
    """The prompt in a file. Raises `TeacherPromptError`."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherPromptError(f"{path} can't be read: {error}") from None
    before, *parts = _TURN.split(text + "\n")
    roles = [cast("Role", role) for role in parts[::2]]
    turns = tuple(
        Message(role, content.strip()) for role, content in zip(roles, parts[1::2], strict=True)
    )
    if before.strip() or not turns or turns[-1].role != "user" or VIDEO not in turns[-1].content:
        raise TeacherPromptError(
            f"{path}: expected turns that begin with a line [system], [user] or [assistant], the "
            f"last of them a [user] turn with {VIDEO} in it"
        )
    return TeacherPrompt(turns, hashlib.sha256(data).hexdigest()[:12])
