"""Events become data: what one event changes in the state, told apart from how it is stored.

`stream.events.fold` turns an event into writes; `feature_store.store` applies them to Redis and
`feature_store.memory` to plain dictionaries. Both give the same state (a contract suite holds
them to it), whatever the order, duplicates or crashes in between.
"""

from __future__ import annotations

import math

from msgspec import Struct, structs

from onebar.errors import OneBarError
from onebar.records import VideoText

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


class InvalidWriteError(OneBarError, ValueError):
    """A write that no store can take: the text says which field and why."""


def check_write(write: Write) -> None:
    """Raise `InvalidWriteError` unless every store can take the write.

    `ts` must be finite and not negative, an anchor's weight an integer from 1 to 2**31, and
    every text encodable (no lone surrogates).
    """
    if not (math.isfinite(write.ts) and write.ts >= 0):
        raise InvalidWriteError(f"expected a finite ts >= 0, got {write.ts!r} in {write!r:.200}")
    texts: list[str]
    match write:
        case VideoPut():
            texts = [write.video_id, write.event_id]
            texts += [text for text in structs.astuple(write.text) if isinstance(text, str)]
        case BehaviorAdd():
            texts = [write.video_id, write.event_id, *write.exposures, *write.clicks]
            texts += [*write.engagements, *(query for query, _ in write.anchors)]
            for query, milli in write.anchors:
                if not 0 < milli <= 2**31:
                    raise InvalidWriteError(
                        f"expected a weight from 1 to {2**31:,} thousandths, got {milli:,} "
                        f"for the query {query!r:.80}"
                    )
        case HistoryPut():
            texts = [write.user_id, write.query]
        case UserDelete():
            texts = [write.user_id]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidWriteError(f"text that is no Unicode: {error} in {write!r:.200}") from None
