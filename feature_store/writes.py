"""Events become data: what one event changes in the state, told apart from how it is stored.

`stream.fold` turns an event into writes; `feature_store.store` applies them to Redis and
`feature_store.memory` to plain dictionaries. Both give the same state (a contract suite holds
them to it), whatever the order, duplicates or crashes in between.
"""

from __future__ import annotations

from msgspec import Struct

from feature_store.records import VideoText

MILLI = 1000
"""Anchor weights are counted in thousandths, as integers."""


class Position(Struct, frozen=True, order=True):
    """Where in the log an event stands."""

    topic: str
    partition: int
    offset: int


class VideoPut(Struct, frozen=True, tag=True):
    """A video's cleaned text: the greatest (ts, event_id) wins, so repeating it changes nothing."""

    video_id: str
    ts: float
    event_id: str
    text: VideoText


class BehaviorAdd(Struct, frozen=True, tag=True):
    """One behaviour event's effect on one video. Not idempotent, so fenced and de-duplicated.

    `anchors` are (query, weight in thousandths, > 0); the three others name the queries whose
    counter goes up by one.
    """

    video_id: str
    ts: float
    event_id: str
    anchors: tuple[tuple[str, int], ...] = ()
    exposures: tuple[str, ...] = ()
    clicks: tuple[str, ...] = ()
    engagements: tuple[str, ...] = ()


class HistoryPut(Struct, frozen=True, tag=True):
    """A user's query: the newest time wins and the newest N stay, so repeating changes nothing."""

    user_id: str
    query: str
    ts: float


class UserDelete(Struct, frozen=True, tag=True):
    """Forget everything of a user up to and including `ts`; older events stay forgotten."""

    user_id: str
    ts: float


Write = VideoPut | BehaviorAdd | HistoryPut | UserDelete
