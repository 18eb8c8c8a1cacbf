"""KuaiSearch, the Kuaishou search log, read as a log of events.

A directory holds `recall.jsonl` (one search session a row) and `items.jsonl` (titles). The other
files of the set say nothing that an event could carry. How rows become events:

| in the set | event |
|---|---|
| item with a row in `items.jsonl` | `video`: title, brand (caption), seller (author), category |
| item without a row | none: a video nobody described, known by behaviour alone |
| session | `search` of its query by its user, after no video |
| impressed item | `impression` of the video, and `exposure` of the session's query under it |
| clicked item | `click` on the query under it |
| purchased item | `engagement` of kind `order`; its price is not in the set |

The query is alone under its item, so its position is 0; the item's own place in the list is the
order of the events. `video_id` is `item-N`, `user_id` is `user-N`, `event_id` starts with
`ks-SESSION-`.

`time_index` has no stated unit, so only its order is kept: the n-th session starts n minutes after
`BASE_TS` and lasts less than a minute; the videos come first, at `BASE_TS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from stream.events import (
    NO_JSON,
    Click,
    Engagement,
    Event,
    Exposure,
    Impression,
    InvalidEventError,
    Search,
    ShownQuery,
    Video,
    encode,
    parse,
)
from stream.logs.files import (
    EmptyLogError,
    Identity,
    LogEntry,
    LogNotFoundError,
    TruncatedLogError,
    identify,
)

BASE_TS = 1_735_689_600.0
"""2025-01-01T00:00:00Z."""
SESSION_S = 60.0
NO_BRAND = frozenset({"", "无品牌", "其他/other", "UNKNOWN"})
FILES = ("items.jsonl", "recall.jsonl")


class ItemRow(Struct):
    """A row of `items.jsonl`."""

    item_id: int
    item_title: str
    brand_name: str = ""
    seller_name: str = ""
    category_level1_name: str = ""
    category_level2_name: str = ""
    category_level3_name: str = ""


class SessionRow(Struct):
    """A row of `recall.jsonl`."""

    user_id: int
    session_id: int
    time_index: int
    query: str
    impressed_item_ids: list[int]
    clicked_item_ids: list[int] = []
    purchased_item_ids: list[int] = []


class _TimeIndex(Struct):
    time_index: int


_ITEM = msgspec.json.Decoder(ItemRow)
_SESSION = msgspec.json.Decoder(SessionRow)
_TIME_INDEX = msgspec.json.Decoder(_TimeIndex)


def video_of(item: ItemRow) -> Video:
    """The item as a video."""
    levels = (item.category_level1_name, item.category_level2_name, item.category_level3_name)
    return Video(
        event_id=f"ks-item-{item.item_id}",
        ts=BASE_TS,
        video_id=f"item-{item.item_id}",
        title=item.item_title,
        caption="" if item.brand_name in NO_BRAND else item.brand_name,
        author=item.seller_name,
        category=" ".join(level for level in levels if level not in NO_BRAND),
    )


def session_events(session: SessionRow, rank: int) -> Iterator[Event]:
    """The events of the `rank`-th session (from 1), in the order of their time."""
    prefix = f"ks-{session.session_id}-{session.time_index}"
    start = BASE_TS + rank * SESSION_S
    user, where = f"user-{session.user_id}", f"session-{session.session_id}"
    query = session.query
    yield Search(event_id=f"{prefix}-s", ts=start, user_id=user, query=query, session_id=where)

    shown = [ShownQuery(query)]
    for i, item in enumerate(session.impressed_item_ids):
        video = f"item-{item}"
        ts = start + 1 + 29 * i / len(session.impressed_item_ids)
        yield Impression(
            event_id=f"{prefix}-i{item}", ts=ts, video_id=video, user_id=user, session_id=where
        )
        yield Exposure(
            event_id=f"{prefix}-e{item}",
            ts=ts,
            video_id=video,
            user_id=user,
            queries=shown,
            session_id=where,
        )
    for i, item in enumerate(session.clicked_item_ids):
        yield Click(
            event_id=f"{prefix}-c{item}",
            ts=start + 30 + 20 * i / len(session.clicked_item_ids),
            video_id=f"item-{item}",
            user_id=user,
            query=query,
            position=0,
            session_id=where,
        )
    for i, item in enumerate(session.purchased_item_ids):
        yield Engagement(
            event_id=f"{prefix}-p{item}",
            ts=start + 50 + 9 * i / len(session.purchased_item_ids),
            video_id=f"item-{item}",
            user_id=user,
            query=query,
            kind="order",
            session_id=where,
        )


class KuaiSearchLog:
    """A KuaiSearch directory as a `stream.logs.files.Log`. A position is a number of entries.

    Sessions are sorted by where they stand in the file, not by what they hold: a set of any size
    is read in the memory of its largest session and a few bytes a row.
    """

    def __init__(self, path: Path) -> None:
        """Raises `LogNotFoundError` where the directory or one of its files is missing."""
        for name in FILES:
            if not (path / name).is_file():
                raise LogNotFoundError(
                    f"expected a KuaiSearch directory with {' and '.join(FILES)}, "
                    f"but {path / name} does not exist"
                )
        self.path = path
        self.fraction = 0.0
        self.once = False

    def identity(self) -> Identity:
        items, sessions = (identify(self.path / name) for name in FILES)
        return Identity(
            items.size + sessions.size, items.head + sessions.head, items.digest + sessions.digest
        )

    def continues(self, earlier: Identity) -> bool:
        return self.identity() == earlier

    def entries(self, start: int = 0, number: int = 0) -> Iterator[LogEntry]:
        position = 0
        for position, (event, data, error) in enumerate(self._all(), 1):
            if position > start:
                yield LogEntry(position, position, event, data, error)
        if position == 0:
            raise EmptyLogError(f"{self.path}: neither items nor sessions in it")
        self.fraction = 1.0

    def _all(self) -> Iterator[tuple[Event | None, bytes, str]]:
        with (self.path / "items.jsonl").open("rb") as file:
            for number, (_, line) in enumerate(_lines(file), 1):
                try:
                    yield _checked(video_of(_ITEM.decode(line)))
                except NO_JSON as error:
                    yield _invalid("items.jsonl", number, line, error)
        with (self.path / "recall.jsonl").open("rb") as file:
            index: list[tuple[int, int]] = []
            for number, (offset, line) in enumerate(_lines(file), 1):
                try:
                    index.append((_TIME_INDEX.decode(line).time_index, offset))
                except NO_JSON as error:
                    yield _invalid("recall.jsonl", number, line, error)
            index.sort()
            for rank, (_, offset) in enumerate(index, 1):
                file.seek(offset)
                line = file.readline()
                self.fraction = rank / len(index)
                try:
                    session = _SESSION.decode(line)
                except NO_JSON as error:
                    yield _invalid("recall.jsonl", 0, line, error, offset)
                    continue
                yield from map(_checked, session_events(session, rank))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each line. Raises `TruncatedLogError` for half a line at the end."""
    offset = 0
    for line in file:
        if not line.endswith(b"\n") and not _is_json(line):
            raise TruncatedLogError(f"{file.name} ends in the middle of a line")
        yield offset, line
        offset += len(line)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except NO_JSON:
        return False
    return True


def _checked(event: Event) -> tuple[Event | None, bytes, str]:
    """The event as every consumer will read it: what it cannot be is an error here already."""
    data = encode(event)
    try:
        return parse(data), data, ""
    except InvalidEventError as error:
        return None, data, str(error)


def _invalid(
    name: str, number: int, line: bytes, error: Exception, offset: int | None = None
) -> tuple[None, bytes, str]:
    where = f"line {number}" if offset is None else f"the row at byte {offset:,}"
    return None, line.rstrip(b"\r\n"), f"{name}, {where}: {error}"
