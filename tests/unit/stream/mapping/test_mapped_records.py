"""Records of somebody else's topic become events, whatever stands in them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events import DEAD_LETTERS, Event, Removal, Search
from stream.kafka.records import Record
from stream.logs.dead_letters import DeadLetter, _read
from stream.mapping.mapping import EventMapping, UnmappedError, open_mapping, ready_mappings
from stream.mapping.records import (
    TableWithoutColumnsError,
    check_fit,
    events_of,
    preview_records,
    remade,
)
from stream.workers.dead_letters import dead_letter

SEARCH = {"ts": "at", "user_id": "who", "query": "words"}
ROW = {"at": 5, "who": "u", "words": "boots"}


def mapping(*events: dict[str, Any], **more: Any) -> EventMapping:
    return EventMapping({"event": list(events), **more}, "a test's")


def record(value: Any, *, offset: int = 0, **more: Any) -> Record:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    fields = {"partition": 1, "timestamp": 7.5, "key": b"k", **more}
    return Record(topic="theirs", offset=offset, value=raw, **fields)


def one(found: list[Any]) -> Event:
    [event] = found
    assert not isinstance(event, UnmappedError), event
    return event  # type: ignore[no-any-return]


def why(found: list[Any]) -> str:
    [error] = found
    assert isinstance(error, UnmappedError), error
    return str(error)


def test_what_the_record_says_stands_beside_its_row() -> None:
    made = mapping(
        {
            "type": "search",
            "when": {"$kafka.headers.kind": "typed"},
            "fields": {
                "ts": "$kafka.timestamp",
                "user_id": "$kafka.key",
                "query": "words",
                "session_id": {"path": "$kafka.headers.session"},
            },
        }
    )
    headers = (("kind", b"typed"), ("session", b"s"))
    event = one(events_of(record({"words": "boots"}, headers=headers), made))
    assert isinstance(event, Search)
    assert (event.ts, event.user_id, event.query, event.session_id) == (7.5, "k", "boots", "s")
    assert events_of(record({"words": "boots"}), made) == []


def test_an_id_is_of_the_row_and_of_what_is_taken_of_its_record() -> None:
    plain = mapping({"type": "search", "fields": SEARCH})
    [of_a_file] = plain.events(ROW)
    first = one(events_of(record(ROW), plain))
    assert first == of_a_file  # a backfill from files and the topic count once
    assert one(events_of(record(ROW, offset=9, partition=0, timestamp=99.0), plain)) == first
    assert one(events_of(record({**ROW, "x": 1}), plain)).event_id != first.event_id

    keyed = mapping({"type": "search", "fields": {**SEARCH, "user_id": "$kafka.key"}})
    a, b = record(ROW, key=b"a"), record(ROW, key=b"b")
    assert one(events_of(a, keyed)).event_id != one(events_of(b, keyed)).event_id
    again = record(ROW, key=b"a", offset=4)
    assert one(events_of(a, keyed)).event_id == one(events_of(again, keyed)).event_id


def test_a_record_may_hold_several_rows() -> None:
    made = mapping({"type": "search", "fields": SEARCH})
    found = events_of(record([ROW, {**ROW, "at": "soon"}, {**ROW, "who": "w"}]), made)
    assert [type(each) for each in found] == [Search, UnmappedError, Search]
    assert str(found[1]).startswith("row 2 of 3: ts (from at)")


def test_lines_of_a_table() -> None:
    table = {"columns": ["at", "who", "words"], "delimiter": "|"}
    made = mapping({"type": "search", "fields": SEARCH}, form="table", table=table)
    check_fit(made)
    found = events_of(record(b"5|u|boots\n6|w|red boots\n"), made)
    assert [each.query for each in found if isinstance(each, Search)] == ["boots", "red boots"]
    assert why(events_of(record(b"5|u"), made)) == "expected 3 columns, got 2"
    with pytest.raises(TableWithoutColumnsError, match="columns"):
        check_fit(mapping({"type": "search", "fields": SEARCH}, form="table"))


def test_a_tombstone_is_only_for_rules_that_say_so() -> None:
    removal = {
        "type": "removal",
        "when": {"$kafka.tombstone": True},
        "fields": {"ts": "$kafka.timestamp", "video_id": "$kafka.key"},
    }
    made = mapping({"type": "search", "fields": SEARCH}, removal)
    gone = record(b"", null=True)
    event = one(events_of(gone, made))
    assert isinstance(event, Removal)
    assert (event.video_id, event.ts) == ("k", 7.5)
    assert isinstance(one(events_of(record(ROW), made)), Search)
    assert events_of(gone, mapping({"type": "search", "fields": SEARCH})) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\x00\x00\x00\x00\x07\x02", "schema registry"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"7", "expected a JSON object"),
        (b'[{"at": 5}, "x"]', "expected a JSON object"),
        (b'{"at": "soon"}', "expected a time"),
        (b'{"at": 5, "who": "u"}', "query"),
    ],
)
def test_why_a_record_is_no_event(value: bytes, said: str) -> None:
    assert said in why(events_of(record(value), mapping({"type": "search", "fields": SEARCH})))


def test_a_row_too_deep_for_an_id_is_no_event() -> None:
    deep = {**ROW, "x": orjson.loads(b"[" * 300 + b"]" * 300)}
    [error] = mapping({"type": "search", "fields": SEARCH}).events(deep)
    assert isinstance(error, UnmappedError)


@pytest.mark.parametrize("depth", [500, 1000, 1020])
@pytest.mark.parametrize("name", ["", *SEARCH])
def test_a_value_too_deep_for_anything_is_no_event(name: str, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    row = json.dumps(ROW).encode()[:-1] + b',"deep":' + nested + b"}" if name else nested
    fields = {**SEARCH, name: "deep"} if name else SEARCH
    assert why(events_of(record(row), mapping({"type": "search", "fields": fields})))
    asked = mapping({"type": "search", "when": {"deep": "x"}, "fields": SEARCH})
    assert not any(isinstance(found, Event) for found in events_of(record(row), asked))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from([*ROW]), inner),
    max_leaves=8,
)


@given(
    value=st.binary() | JSON.map(lambda found: json.dumps(found).encode()),
    key=st.none() | st.binary(),
    header=st.binary(),
    null=st.booleans(),
    name=st.sampled_from(["", *ready_mappings()]),
)
def test_whatever_stands_in_a_record_nothing_is_raised(
    value: bytes, key: bytes | None, header: bytes, null: bool, name: str
) -> None:
    fields = {**SEARCH, "video_id": "$kafka.key", "session_id": "$kafka.headers.h"}
    made = open_mapping(name) if name else mapping({"type": "search", "fields": fields})
    given = record(value, key=key, headers=(("h", header),), null=null)
    first, again = (list(map(str, events_of(given, made))) for _ in range(2))
    assert first == again


def letter_of(given: Record, error: Exception, by: str) -> DeadLetter:
    topic, key, value, headers = dead_letter(given, error, by)
    return _read(Record(topic, 0, 3, 1.0, key, value or b"", tuple(headers)))


def test_a_row_that_was_set_aside_becomes_its_event_by_a_mended_mapping() -> None:
    fields = {"ts": "$kafka.timestamp", "user_id": "$kafka.headers.who", "query": "words"}
    mended = mapping({"type": "search", "fields": fields})
    given = record({"words": "boots"}, headers=(("who", b"u"),))
    letter = letter_of(given, UnmappedError("no who"), "the first try")
    assert (letter.topic, letter.mapping, letter.number) == ("theirs", "the first try", (0, 3))
    assert remade(letter, mended) == events_of(given, mended)
    with pytest.raises(UnmappedError, match="drop"):
        remade(letter, mapping({"type": "search", "when": {"no": True}, "fields": fields}))
    with pytest.raises(UnmappedError, match="expected a time"):
        remade(letter, mapping({"type": "search", "fields": {**fields, "ts": "words"}}))
    ours = letter_of(given, UnmappedError("x"), "")
    assert (ours.mapping, ours.headers) == ("", ())
    assert dead_letter(given, UnmappedError("x"))[0] == DEAD_LETTERS


def test_a_preview_counts_records() -> None:
    made = mapping({"type": "search", "when": {"who": True}, "fields": SEARCH})
    seen = preview_records([record(ROW), record({}), record({"who": 1}, offset=8)], made)
    assert (seen.rows, seen.unmapped, len(seen.events)) == (3, 1, 1)
    assert seen.errors[0][0] == "1:8"
