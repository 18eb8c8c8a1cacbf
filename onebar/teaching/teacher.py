"""What a teacher is: something that answers a conversation, and may be away for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from onebar.errors import OneBarError, UsageError

Role = Literal["system", "user", "assistant"]


class Message(Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Reply(Struct, frozen=True):
    """What a teacher said, and what it cost in tokens where the teacher tells (else 0)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class TeacherError(OneBarError, RuntimeError):
    """A teacher that gives no answer. The text says what it said instead."""


class TeacherAwayError(TeacherError):
    """No answer now; the same question later may get one. `retry_after_s` is what the teacher
    asked for."""

    def __init__(self, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class TeacherRefusesError(TeacherError):
    """This question gets no answer, however often it is asked."""


class TeacherUnusableError(UsageError, TeacherError):
    """No question gets an answer: a wrong address, key or model."""


class Teacher(Protocol):
    """Answers conversations; `ask` may be called from several threads at once."""

    name: str
    """What the rows say wrote them."""

    def ask(self, messages: Sequence[Message]) -> Reply:
        """Raises `TeacherAwayError`, `TeacherRefusesError`, `TeacherUnusableError`."""
        ...
