"""The events, and the one way in: `parse(bytes) -> Event`.

One JSON object a message. Unknown fields are dropped; a missing or ill-typed one is an
`InvalidEventError` that names it. The JSON Schemas and the AsyncAPI document are generated from
these types (`stream.events.schemas`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType

from onebar.errors import OneBarError

VIDEOS = "onebar.videos"
IMPRESSIONS = "onebar.impressions"
BEHAVIORS = "onebar.behaviors"
RULES = "onebar.rules"
QUERIES = "onebar.queries"
DEAD_LETTERS = "onebar.dead-letters"

MAX_EVENT_BYTES = 900_000
"""Longest accepted message: under the 1 MB that Kafka brokers take by default."""
MAX_QUERY_CHARS = 512

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\u0000-\u001f\u007f]+(?![\s\S])",
        description="An identifier: 1 to 256 characters, none of them a control character.",
    ),
]
Timestamp = Annotated[
    float,
    Meta(ge=0, lt=2**33, description="UTC epoch seconds, fractions allowed."),
]
Query = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_QUERY_CHARS,
        pattern=r"\S",
        description="A search query as the user saw or typed it.",
    ),
]
Text = Annotated[str, Meta(description="Free text, as it came; cleaned before it is stored.")]
EngagementKind = Literal["item_click", "cart", "order", "dwell"]


class InvalidEventError(OneBarError, ValueError):
    """A message that is no event. The text names the field, what was expected and what came."""


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    topic: ClassVar[str]

    event_id: Id
    ts: Timestamp

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def key(self) -> str:
        """The Kafka message key: events of one key keep their order."""
        raise NotImplementedError


class Video(_Event, tag="video", frozen=True, kw_only=True):
    """A video's content, created or changed: replaces what was known of it."""

    topic: ClassVar[str] = VIDEOS

    video_id: Id
    title: Text = ""
    caption: Text = ""
    author: Text = ""
    item_title: Text = ""
    ocr: Text = ""
    asr: Text = ""
    summary: Text = ""
    category: Text = ""
    sensitive: bool = False

    @property
    def key(self) -> str:
        return self.video_id


class Removal(_Event, tag="removal", frozen=True, kw_only=True):
    """A video is gone: it carries no query from now on, and its text is forgotten.

    A later `video` event brings it back. An empty message (a tombstone) with the id as its key says
    the same, but Kafka drops it in the end, and what was there before it as well.
    """

    topic: ClassVar[str] = VIDEOS

    video_id: Id

    @property
    def key(self) -> str:
        return self.video_id


class Impression(_Event, tag="impression", frozen=True, kw_only=True):
    """A user is about to see a video: triggers generation."""

    topic: ClassVar[str] = IMPRESSIONS

    video_id: Id
    user_id: Id | UnsetType = UNSET
    session_id: Id | UnsetType = UNSET
    request_id: Id | UnsetType = UNSET

    @property
    def key(self) -> str:
        return self.video_id


class Search(_Event, tag="search", frozen=True, kw_only=True):
    """A user typed a query; `video_id` is the video watched before, if any."""

    topic: ClassVar[str] = BEHAVIORS

    user_id: Id
    query: Query
    video_id: Id | UnsetType = UNSET
    session_id: Id | UnsetType = UNSET

    @property
    def key(self) -> str:
        return self.user_id if self.video_id is UNSET else self.video_id


class ShownQuery(Struct, frozen=True):
    """A query in the bar. `position` counts from 0. `propensity` is how likely it was to stand
    there, as the answer told; 1 where it did not."""

    query: Query
    position: Annotated[int, Meta(ge=0, le=1000)] = 0
    propensity: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET


class Exposure(_Event, tag="exposure", frozen=True, kw_only=True):
    """Which queries were shown under a video, and where; `request_id` names what served them."""

    topic: ClassVar[str] = BEHAVIORS

    video_id: Id
    user_id: Id
    queries: Annotated[list[ShownQuery], Meta(min_length=1, max_length=100)]
    request_id: Id | UnsetType = UNSET
    session_id: Id | UnsetType = UNSET

    @property
    def key(self) -> str:
        return self.video_id


class Click(_Event, tag="click", frozen=True, kw_only=True):
    """A shown query was tapped."""

    topic: ClassVar[str] = BEHAVIORS

    video_id: Id
    user_id: Id
    query: Query
    position: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET
    request_id: Id | UnsetType = UNSET
    session_id: Id | UnsetType = UNSET

    @property
    def key(self) -> str:
        return self.video_id


class Engagement(_Event, tag="engagement", frozen=True, kw_only=True):
    """What the tapped query led to. `value` is money for an order and seconds for a dwell."""

    topic: ClassVar[str] = BEHAVIORS

    video_id: Id
    user_id: Id
    query: Query
    kind: EngagementKind
    value: Annotated[float, Meta(ge=0)] = 0.0
    request_id: Id | UnsetType = UNSET
    session_id: Id | UnsetType = UNSET

    @property
    def key(self) -> str:
        return self.video_id


class Deletion(_Event, tag="deletion", frozen=True, kw_only=True):
    """A user is to be forgotten: everything up to and including `ts`.

    It stands in the log so that a replay keeps a deleted user deleted.
    """

    topic: ClassVar[str] = BEHAVIORS

    user_id: Id

    @property
    def key(self) -> str:
        return self.user_id


RuleText = Annotated[str, Meta(max_length=MAX_QUERY_CHARS)]
Note = Annotated[str, Meta(max_length=1000)]


class RuleChange(_Event, tag="rule", frozen=True, kw_only=True):
    """A decision about what may be shown, made, changed or (`remove`) taken back.

    At most one of `query`, `word` and `pattern` says what it is about; `video_id`, `author`,
    `category`, `market`, `languages` and the period from `starts` to `ends` say where and when it
    holds. `who` decided so, and `why`.
    """

    topic: ClassVar[str] = RULES

    rule_id: Id
    action: Literal["block", "allow", "pin", "learn", "remove"]
    query: RuleText = ""
    word: RuleText = ""
    pattern: RuleText = ""
    languages: Annotated[list[str], Meta(max_length=32)] = []
    video_id: Annotated[str, Meta(max_length=256)] = ""
    author: RuleText = ""
    category: RuleText = ""
    market: RuleText = ""
    starts: Timestamp | UnsetType = UNSET
    ends: Timestamp | UnsetType = UNSET
    who: Note = ""
    why: Note = ""

    @property
    def key(self) -> str:
        return self.rule_id


Behavior = Search | Exposure | Click | Engagement | Deletion
Event = Video | Removal | Impression | Behavior | RuleChange
EVENT_TYPES: tuple[type[_Event], ...] = (
    Video,
    Removal,
    Impression,
    Search,
    Exposure,
    Click,
    Engagement,
    Deletion,
    RuleChange,
)
ADMIN_EVENTS: tuple[type[_Event], ...] = (Removal, Deletion, RuleChange)
"""What only an administrator may send over HTTP: it takes away, for everybody and for good."""


_DECODER = msgspec.json.Decoder(Event)

NO_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that it can't read: text that is no UTF-8 and what is nested a
thousand deep have errors of their own."""


def parse(data: bytes) -> Event:
    """The event in one message.

    Raises `InvalidEventError` naming the field for anything else: bytes that are no JSON, a
    type nobody knows, a missing, ill-typed or out-of-range field, or more than
    `MAX_EVENT_BYTES`.
    """
    if len(data) > MAX_EVENT_BYTES:
        raise InvalidEventError(
            f"the message has {len(data):,} bytes; at most {MAX_EVENT_BYTES:,} are accepted"
        )
    try:
        event: Event = _DECODER.decode(data)
    except NO_JSON:
        return _parse_loosely(data)
    return event


def _parse_loosely(data: bytes) -> Event:
    """What a careless client wrote, read as it was meant, or an error that says what is wrong."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value = _without_lone_surrogates(data, error)
    try:
        return from_object(value)
    except InvalidEventError:
        # Whoever writes every field, null where there is nothing, means that there is nothing.
        bare = _without_nulls(value)
        if bare == value:
            raise
        return from_object(bare)


_HALF = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""Half of a character, escaped; in the group what must not be taken for one."""


def _without_lone_surrogates(data: bytes, error: orjson.JSONDecodeError) -> Any:
    """The value, half of a character replaced by U+FFFD: some clients cut texts between halves."""
    mended = _HALF.sub(lambda match: match[1] or rb"\ufffd", data)
    try:
        if mended != data:
            return orjson.loads(mended)
    except orjson.JSONDecodeError:
        pass
    raise InvalidEventError(f"not JSON: {error}") from None


_DEPTH = 8
"""Levels that are looked at: more than any event has. What is nested deeper, it has no field for,
and no message may be so deep that reading it fails."""


def _without_nulls(value: Any, depth: int = _DEPTH) -> Any:
    if depth and isinstance(value, dict):
        return {
            name: _without_nulls(inner, depth - 1)
            for name, inner in value.items()
            if inner is not None
        }
    if depth and isinstance(value, list):
        return [_without_nulls(inner, depth - 1) for inner in value]
    return value


_AT_TS = " - at `$.ts`"


def from_object(value: Any) -> Event:
    """The event in a decoded JSON value. Raises `InvalidEventError` as `parse` does."""
    try:
        event: Event = msgspec.convert(value, Event)
    except msgspec.ValidationError as error:
        said, at, where = str(error).partition(_AT_TS)
        hint = " (UTC epoch seconds; a mapping reads other times)" if at else ""
        raise InvalidEventError(said + hint + at + where) from None
    return event


def encode(event: Event) -> bytes:
    """The message of an event: `parse(encode(event)) == event`."""
    return orjson.dumps(msgspec.to_builtins(event))
