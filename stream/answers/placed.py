"""What is found of an answer, and where it stands."""

from __future__ import annotations

from msgspec import UNSET, Struct

from onebar.records import Candidate
from stream.events import Event, Video


class Placed(Struct, frozen=True):
    """An event, when the log took it (UTC epoch seconds), and where it stands."""

    event: Event
    taken_at: float
    where: str


class Made(Struct, frozen=True):
    """A list of queries that was generated, and where it was found."""

    queries: tuple[Candidate, ...]
    model: str
    evidence_digest: str
    generated_at: float
    where: str


def user_of(event: Event) -> str | None:
    """Whose event it is, if anybody's."""
    found = getattr(event, "user_id", UNSET)
    return found if isinstance(found, str) else None


def video_of(event: Event) -> str | None:
    """Of which video it is, if of any."""
    found = getattr(event, "video_id", UNSET)
    return found if isinstance(found, str) else None


def is_of(event: Event, video_id: str, user_id: str | None) -> bool:
    """Whether an event bears on what is known of the pair."""
    if video_of(event) == video_id:
        return True
    return user_id is not None and user_of(event) == user_id and not isinstance(event, Video)
