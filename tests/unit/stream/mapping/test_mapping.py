"""Rows of another shape become the events they mean, or say why they can't."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.errors import UsageError
from stream.events import Engagement, Event, Exposure, Impression, Search, ShownQuery, Video
from stream.events.types import encode
from stream.mapping.log import MappedLog, preview
from stream.mapping.mapping import (
    EventMapping,
    InvalidMappingError,
    UnmappedError,
    open_mapping,
    ready_mappings,
)
from stream.mapping.paths import MISSING, PathError, find, steps_of
from stream.mapping.slips import slips
from stream.mapping.values import InvalidValueError, seconds


def mapping(*events: dict[str, Any], **more: Any) -> EventMapping:
    return EventMapping({"event": list(events), **more}, "a test's")


def events_of(made: EventMapping, row: dict[str, Any]) -> list[Event]:
    found = list(made.events(row))
    assert not [one for one in found if isinstance(one, UnmappedError)], found
    return [one for one in found if not isinstance(one, UnmappedError)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b", 1),
        ("items[1].sku", "y"),
        ("params[key=term].value.text", "boots"),
        ("dotted.name", "whole"),
        ("params[key=none].value", MISSING),
        ("items[7]", MISSING),
        ("a.b.c", MISSING),
        ("null", MISSING),
    ],
)
def test_a_path_finds_what_stands_there(path: str, expected: object) -> None:
    row = {
        "a": {"b": 1},
        "items": [{"sku": "x"}, {"sku": "y"}],
        "params": [{"key": "id"}, {"key": "term", "value": {"text": "boots"}}],
        "dotted.name": "whole",
        "null": None,
    }
    assert find(row, path, steps_of(path)) == expected


@pytest.mark.parametrize("path", ["", "a..b", "[", "a[=]x]", "a."])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        steps_of(path)


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1_767_225_611, "s"),
        ("1767225611", "auto"),
        (1_767_225_611_000, "auto"),
        (1_767_225_611_000_000, "us"),
        ("1767225611000000000", "ns"),
        ("2026-01-01T00:00:11Z", "iso"),
        ("2026-01-01 00:00:11 UTC", "auto"),
        ("2026-01-01 00:00:11", "auto"),
        ("2026-01-01T08:00:11+08:00", "auto"),
    ],
)
def test_a_time_is_told_in_many_ways(value: object, unit: Any) -> None:
    assert seconds(value, unit) == 1_767_225_611.0


@pytest.mark.parametrize("value", ["soon", True, [], "nan", "", None])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError):
        seconds(value)


@given(st.floats(1e9, 4e9), st.sampled_from(["s", "ms", "us", "ns"]))
def test_the_unit_is_told_by_the_size(moment: float, unit: Any) -> None:
    scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    assert seconds(moment * scale) == pytest.approx(moment, abs=1e-3)
    assert seconds(moment * scale, unit) == pytest.approx(moment, abs=1e-3)


def test_one_row_may_be_several_events() -> None:
    made = mapping(
        {
            "type": "video",
            "when": {"title": True},
            "fields": {"ts": "t", "video_id": "v", "title": "title"},
        },
        {"type": "impression", "fields": {"ts": "t", "video_id": "v", "user_id": "u"}},
    )
    video, impression = events_of(made, {"t": 5, "v": 42, "u": 7.0, "title": "Bread"})
    assert isinstance(video, Video)
    assert isinstance(impression, Impression)
    assert (video.video_id, impression.user_id) == ("42", "7")
    assert video.event_id != impression.event_id
    assert len(events_of(made, {"t": 5, "v": 42, "title": ""})) == 1


def test_lists_constants_prefixes_and_words_for_words() -> None:
    made = mapping(
        {
            "type": "exposure",
            "when": {"kind": ["bar", "strip"]},
            "fields": {
                "ts": "t",
                "video_id": {"path": "v", "prefix": "yt-"},
                "user_id": {"value": "everybody"},
                "queries": {"each": "shown", "fields": {"query": "q", "position": "at"}},
            },
        },
        {
            "type": "engagement",
            "when": {"kind": "buy"},
            "fields": {
                "ts": "t",
                "video_id": "v",
                "user_id": "u",
                "query": "q",
                "kind": {"path": "kind", "values": {"buy": "order"}},
                "value": "paid",
            },
        },
    )
    row = {"kind": "bar", "t": 1, "v": "9", "shown": [{"q": "a"}, {"q": "b", "at": "4"}]}
    [exposure] = events_of(made, row)
    assert isinstance(exposure, Exposure)
    assert exposure.video_id == "yt-9"
    assert exposure.queries == [ShownQuery("a", 0), ShownQuery("b", 4)]
    [order] = events_of(made, {"kind": "buy", "t": 1, "v": "9", "u": "1", "q": "a", "paid": "9.50"})
    assert isinstance(order, Engagement)
    assert (order.kind, order.value) == ("order", 9.5)
    assert list(made.events({"kind": "else"})) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "event"),
        ({"event": []}, "no \\[\\[event\\]\\]"),
        ({"event": [{"type": "tap"}]}, "expected one of video"),
        ({"event": [{"type": "click", "fields": {"txt": "q"}}]}, "txt: no field of 'click'"),
        ({"event": [{"type": "click", "fields": {"ts": {"time": "h"}}}]}, "Invalid enum value"),
        ({"event": [{"type": "click", "fields": {"ts": {}}}]}, "one of path, value and each"),
        ({"event": [{"type": "click", "wen": {}}]}, "nothing is called 'wen'"),
        ({"event": [{"type": "click", "when": {"a[": 1}}]}, "no path"),
    ],
)
def test_a_mapping_that_is_none_says_where(data: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMappingError, match=said) as caught:
        EventMapping(data, "a test's")
    assert isinstance(caught.value, UsageError)


def test_what_cant_be_made_says_which_field_and_from_where() -> None:
    made = mapping({"type": "search", "fields": {"ts": "when", "user_id": "u", "query": "q"}})
    [error] = made.events({"when": "soon", "u": "1", "q": "boots"})
    assert "ts (from when): expected a time, got 'soon'" in str(error)
    [error] = made.events({"when": 1, "u": "1"})
    assert "query" in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["t", "u", "v", "q", "list"]), json_values),
    st.sampled_from(ready_mappings()),
)
def test_no_row_breaks_a_mapping(row: dict[str, Any], name: str) -> None:
    own = mapping(
        {"type": "search", "fields": {"ts": "t", "user_id": "u", "video_id": "v", "query": "q"}},
        {
            "type": "exposure",
            "when": {"list": True},
            "fields": {
                "ts": "t",
                "user_id": "u",
                "video_id": "v",
                "queries": {"each": "list", "fields": {"query": "q"}},
            },
        },
    )
    for made in (own, open_mapping(name)):
        for one in made.events(row):
            assert isinstance(one, UnmappedError) or encode(one)


def test_the_same_row_is_the_same_event_and_counts_once() -> None:
    made = open_mapping("retailrocket")
    row = {"timestamp": "1433221332117", "visitorid": "1", "event": "view", "itemid": "2"}
    first, again = (events_of(made, {**row}) for _ in range(2))
    other = events_of(made, {**row, "itemid": "3"})
    assert first == again
    assert first[0].event_id != other[0].event_id


READY: dict[str, list[tuple[dict[str, Any], list[str]]]] = {
    "cloudevents": [
        (
            {
                "specversion": "1.0",
                "id": "c1",
                "type": "search",
                "time": "2026-01-01T00:00:00Z",
                "data": {"user_id": "u", "query": "boots"},
            },
            ["search"],
        )
    ],
    "segment": [
        (
            {
                "type": "track",
                "event": "Products Searched",
                "messageId": "m",
                "anonymousId": "a",
                "timestamp": "2026-01-01T00:00:00.000Z",
                "properties": {"query": "boots"},
            },
            ["search"],
        ),
        ({"type": "identify", "userId": "u"}, []),
    ],
    "snowplow": [
        (
            {
                "event_name": "site_search",
                "event_id": "e",
                "collector_tstamp": "2026-01-01 00:00:00.000",
                "domain_userid": "d",
                "unstruct_event_com_snowplowanalytics_snowplow_site_search_1": {
                    "terms": ["red", "boots"]
                },
            },
            ["search"],
        )
    ],
    "ga4": [
        (
            {
                "event_name": "view_search_results",
                "event_timestamp": "1767225611000000",
                "user_pseudo_id": "1.2",
                "event_params": [
                    {"key": "ga_session_id", "value": {"int_value": 7}},
                    {"key": "search_term", "value": {"string_value": "boots"}},
                ],
            },
            ["search"],
        )
    ],
    "ubi": [
        (
            {
                "query_id": "q1",
                "client_id": "c",
                "user_query": "boots",
                "timestamp": "2026-01-01T00:00:00Z",
            },
            ["search"],
        ),
        (
            {
                "action_name": "add_to_cart",
                "query_id": "q1",
                "client_id": "c",
                "user_id": "",
                "user_query": "boots",
                "timestamp": "2026-01-01T00:00:00Z",
                "event_attributes": {"object": {"object_id": "B1", "description": "Red boots"}},
            },
            ["engagement", "video"],
        ),
        ({"index": {"_index": "ubi_queries"}}, []),
    ],
}


@pytest.mark.parametrize("name", sorted(READY))
def test_the_ready_ones_know_their_rows(name: str) -> None:
    made = open_mapping(name)
    for row, kinds in READY[name]:
        assert [event.type for event in events_of(made, row)] == kinds
    if name == "snowplow":
        [search] = events_of(made, READY[name][0][0])
        assert isinstance(search, Search)
        assert search.query == "red boots"


def test_every_ready_one_opens_and_says_what_it_is() -> None:
    assert len(ready_mappings()) >= 9
    for name in ready_mappings():
        made = open_mapping(name)
        assert made.name
        assert made.note


def table(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def test_a_table_is_read_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    rows = [
        ["timestamp", "visitorid", "event", "itemid", "transactionid"],
        ["1433221332117", "257597", "view", "355908", ""],
        ["1433224214164", "992329", "transaction", "248676", "7"],
        ["soon", "1", "view", "2", ""],
        ["short"],
    ]
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + table(rows)))
    log = MappedLog(path, open_mapping("retailrocket"))
    entries = list(log.entries())
    assert [entry.number for entry in entries] == [1, 3, 4]
    assert isinstance(entries[0].event, Impression)
    assert "expected a time" in entries[1].error
    assert "expected 5 columns, got 1" in entries[2].error
    assert log.unmapped == 1
    assert [entry.number for entry in log.entries(start=1)] == [3, 4]
    seen = preview(log)
    assert (seen.rows, seen.unmapped, len(seen.events), len(seen.errors)) == (4, 1, 1, 2)


CLICKS: dict[str, Any] = {
    "type": "click",
    "fields": {"ts": "ts", "user_id": "u", "video_id": "v", "query": "q"},
}


def test_a_quote_that_is_not_closed_costs_the_rows_it_swallows_and_no_others(
    tmp_path: Path,
) -> None:
    path = tmp_path / "clicks.csv"
    good = b"1795883074,u%d,v,hats\r\n"
    swallowing = b'1795883074,u,v,"hats\r\n' + good % 0 * (csv.field_size_limit() // 10)
    path.write_bytes(b"ts,u,v,q\r\n" + good % 1 + swallowing + good % 2)
    entries = list(MappedLog(path, mapping(CLICKS, form="table")).entries())
    wrong = [entry for entry in entries if entry.event is None]
    assert [entry.number for entry in wrong] == [2]
    assert "quote" in wrong[0].error
    assert wrong[0].data.startswith(b'1795883074,u,v,"hats\r\n1795883074,u0,')
    made = [entry.event for entry in entries if entry.event]
    assert len(made) > 2
    assert getattr(made[-1], "user_id", "") == "u2"


def test_a_row_that_is_not_utf8_is_a_dead_letter_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes(b'ts,u,v,q\n1795883074,u,v,"gr\xfcn, blau"\n1795883074,u,v,gr\xc3\xbcn\n')
    bad, good = MappedLog(path, mapping(CLICKS, form="table")).entries()
    assert (bad.event, bad.data) == (None, b'1795883074,u,v,"gr\xfcn, blau"')
    assert "not UTF-8" in bad.error
    assert getattr(good.event, "query", "") == "gr\u00fcn"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"delimiter": "ab"}, "delimiter: expected one character, got 'ab'"),
        ({"delimiter": ""}, "delimiter"),
        ({"delimiter": "\n"}, "delimiter"),
        ({"quote": "''"}, "quote"),
        ({"quote": ","}, "quote"),
        ({"columns": ["a", "b", "a"]}, "columns: named more than once: a"),
    ],
)
def test_a_table_that_nobody_can_write_is_refused_as_it_is_opened(
    table: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidMappingError, match=why):
        mapping(CLICKS, form="table", table=table)


@pytest.mark.parametrize("form", ["lines", "array", "utf-16"])
def test_json_is_read_as_it_stands(tmp_path: Path, form: str) -> None:
    rows = [row for row, _ in READY["ubi"]]
    text = json.dumps(rows, indent=1) if form == "array" else "\n".join(map(json.dumps, rows))
    path = tmp_path / "log"
    path.write_bytes(text.encode("utf-16" if form == "utf-16" else "utf-8"))
    kinds = [e.event.type for e in MappedLog(path, open_mapping("ubi")).entries() if e.event]
    assert kinds == ["search", "engagement", "video"]


def test_a_mapping_that_is_nowhere_names_the_ready_ones() -> None:
    with pytest.raises(InvalidMappingError, match="cloudevents"):
        open_mapping("nowhere.toml")


TAPS = {
    "form": "table",
    "event": [
        {
            "type": "click",
            "when": {"what": "tap"},
            "fields": {"ts": "when", "user_id": "who", "video_id": "clip", "query": "words"},
        }
    ],
}


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("when;who;clip;what;words\n1;u;v;tap;q\n", {}, "is `delimiter` of [table] ';'?"),
        ("1\tu\tv\ttap\tq\n", {"delimiter": "\t"}, "list `columns` under [table]"),
        ("When,who,clip,what,words\n1,u,v,tap,q\n", {}, "is 'When' for 'when' meant?"),
        ("when,who,clip,what,words\n1,u,v,TAP,q\n", {}, "what = 'tap', and they have 'TAP'"),
        (
            "1;u;v;tap;q\n",
            {"columns": ["when", "who", "clip", "what", "words"]},
            "got 1: is `delimiter` of [table] ';'?",
        ),
    ],
)
def test_a_preview_without_events_says_what_may_be_wrong(
    tmp_path: Path, text: str, more: dict[str, Any], said: str
) -> None:
    path = tmp_path / "taps.csv"
    path.write_text(text * 2 if "columns" in str(more) else text + text.splitlines()[-1] + "\n")
    seen = preview(MappedLog(path, EventMapping({**TAPS, "table": more}, "taps")))
    assert not seen.events
    assert said in " ".join([*seen.hints, *(error for _, error in seen.errors)])


@given(
    rows=st.lists(
        st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["when", "who", "what"]),
            st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
            max_size=5,
        ),
        max_size=6,
    )
)
def test_whatever_the_rows_are_hints_are_given_and_nothing_breaks(
    rows: list[dict[str, Any]],
) -> None:
    for name in ready_mappings():
        assert all(hint and len(hint) < 4000 for hint in slips(open_mapping(name), rows))
    found = slips(EventMapping(TAPS, "taps"), rows)
    fitting = [row for row in rows if str(row.get("what")) == "tap"]
    assert found or not rows or fitting, "rows that no rule is about get a hint"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"events": []}, "nothing is called 'events': is 'event' meant?"),
        ({"event": [{"typ": "click"}]}, "nothing is called 'typ' at event 1: is 'type' meant?"),
        ({"event": [], "table": {"delimeter": ";"}}, "'delimeter' at table: is 'delimiter' meant?"),
        (
            {"event": [{"type": "click", "fields": {"ts": {"paht": "t"}}}]},
            "nothing is called 'paht'",
        ),
        ({"event": [{"type": "clicks"}]}, "got 'clicks'"),
    ],
)
def test_a_slip_of_the_pen_is_told_with_what_is_meant(data: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMappingError) as caught:
        EventMapping(data, "mine.toml")
    assert said in str(caught.value)
