"""Events become data: what one event changes in the state, told apart from how it is stored.

`stream.events.fold` turns an event into writes; `feature_store.store` applies them to Redis and
`feature_store.memory` to plain dictionaries. Both give the same state (a contract suite holds
them to it), whatever the order, duplicates or crashes in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from onebar.errors import OneBarError
from onebar.records import TEXT_FIELDS, Rule, VideoText

MILLI = 1000
"""Anchor weights are counted in thousandths, as integers."""


class Position(Struct, frozen=True, order=True):
    """Where in the log an event stands, and when the log took it (UTC epoch seconds, what Kafka
    calls the record's timestamp; None where there is no log: the event's own time counts)."""

    topic: str
    partition: int
    offset: int
    timestamp: float | None = None


class InvalidWriteError(OneBarError, ValueError):
    """A write that no store can take: the text says which field and why."""


class _Write(Struct, frozen=True):
    """A write that every store can take, or it could not have been made.

    Making one raises `InvalidWriteError` unless `ts` is finite and not negative, an anchor's weight
    is an integer from 1 to 2**31, and every text can be encoded (no lone surrogates).
    """

    def _check(self, ts: float, texts: Iterable[str]) -> None:
        if not (math.isfinite(ts) and ts >= 0):
            raise InvalidWriteError(f"expected a finite ts >= 0, got {ts!r} in {self!r:.200}")
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise InvalidWriteError(f"text that is no Unicode: {error} in {self!r:.200}") from None


class VideoPut(_Write, frozen=True, tag=True):
    """A video's cleaned text: the greatest (ts, event_id) wins, so repeating it changes nothing."""

    video_id: str
    ts: float
    event_id: str
    text: VideoText

    def __post_init__(self) -> None:
        fields = (getattr(self.text, name) for name in TEXT_FIELDS)
        self._check(self.ts, (self.video_id, self.event_id, *fields))


class BehaviorAdd(_Write, frozen=True, tag=True):
    """One behaviour event's effect on one video. Not idempotent, so fenced and de-duplicated.

    `anchors` are (query, weight in thousandths, > 0); the three others name the queries whose
    counter goes up by one. A weight counts once for each `user_id`, `kind` of behaviour, query and
    time bucket, however often it comes; where no user is named it always counts. "Once" is decided
    by when the log took them (`feature_store.repeats`).
    """

    video_id: str
    ts: float
    event_id: str
    anchors: tuple[tuple[str, int], ...] = ()
    exposures: tuple[str, ...] = ()
    clicks: tuple[str, ...] = ()
    engagements: tuple[str, ...] = ()
    user_id: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        shown = (*self.exposures, *self.clicks, *self.engagements)
        anchors = [query for query, _ in self.anchors]
        named = (self.video_id, self.event_id, self.user_id, self.kind)
        self._check(self.ts, (*named, *shown, *anchors))
        for query, milli in self.anchors:
            if not 0 < milli <= 2**31:
                raise InvalidWriteError(
                    f"expected a weight from 1 to {2**31:,} thousandths, got {milli:,} "
                    f"for the query {query!r:.80}"
                )


class HistoryPut(_Write, frozen=True, tag=True):
    """A user's query: the newest time wins and the newest N stay, so repeating changes nothing."""

    user_id: str
    query: str
    ts: float

    def __post_init__(self) -> None:
        self._check(self.ts, (self.user_id, self.query))


Reaction = Literal["shown", "tapped", "ordered"]
"""What became of a query before a user: they had it before their eyes, tapped it, bought by it."""


class ReactionPut(_Write, frozen=True, tag=True):
    """What a user had to do with queries that a bar showed: the newest N stay, so repeating changes
    nothing. Of what was `shown` each event counts; of the others the newest time of a query does.
    """

    user_id: str
    ts: float
    event_id: str
    kind: Reaction
    queries: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check(self.ts, (self.user_id, self.event_id, *self.queries))


class UserDelete(_Write, frozen=True, tag=True):
    """Forget everything of a user up to and including `ts` and the policy's reach beyond it; older
    events stay forgotten."""

    user_id: str
    ts: float

    def __post_init__(self) -> None:
        self._check(self.ts, (self.user_id,))


class RulePut(_Write, frozen=True, tag=True):
    """A rule made, changed or (None) taken back: the greatest (ts, event_id) wins."""

    rule_id: str
    ts: float
    event_id: str
    rule: Rule | None

    def __post_init__(self) -> None:
        texts = () if self.rule is None else (self.rule.text, self.rule.who, self.rule.why)
        self._check(self.ts, (self.rule_id, self.event_id, *texts))


Write = VideoPut | BehaviorAdd | HistoryPut | ReactionPut | UserDelete | RulePut
