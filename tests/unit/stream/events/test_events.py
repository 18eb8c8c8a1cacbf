"""Everything that is an event comes through whole; everything else is refused by name."""

from __future__ import annotations

import msgspec
import orjson
import pytest
from event_strategies import events
from hypothesis import given
from hypothesis import strategies as st

from stream.events import MAX_EVENT_BYTES, Click, Event, InvalidEventError, encode, parse

CLICK = {
    "type": "click",
    "event_id": "e1",
    "ts": 1.5,
    "video_id": "v",
    "user_id": "u",
    "query": "running shoes",
}


@given(events())
def test_an_event_reads_back_as_it_was_written(event: Event) -> None:
    assert parse(encode(event)) == event


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    with pytest.raises(InvalidEventError):
        parse(data)


@pytest.mark.parametrize("depth", [200, 500, 900, 1000, 1100, 100_000])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"type":', b"}")])
def test_what_is_nested_deep_is_refused_and_never_crashes(
    opens: bytes, closes: bytes, depth: int
) -> None:
    with pytest.raises(InvalidEventError):
        parse(opens * depth + b"1" + closes * depth)


@pytest.mark.parametrize("depth", [10, 500, 900])
def test_nulls_are_passed_over_beside_a_field_however_deep(depth: int) -> None:
    plain = orjson.dumps({**CLICK, "session_id": None})[:-1]
    data = plain + b',"extra":' + b"[" * depth + b"]" * depth + b"}"
    assert parse(data) == parse(orjson.dumps(CLICK))


def test_unknown_fields_are_dropped() -> None:
    event = parse(orjson.dumps({**CLICK, "colour": "red"}))
    assert event == Click(event_id="e1", ts=1.5, video_id="v", user_id="u", query="running shoes")


@pytest.mark.parametrize("field", ["event_id", "ts", "video_id", "user_id", "query", "type"])
def test_a_missing_field_is_named(field: str) -> None:
    broken = {name: value for name, value in CLICK.items() if name != field}
    with pytest.raises(InvalidEventError, match=f"`{field}`"):
        parse(orjson.dumps(broken))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ts", "yesterday"),
        ("ts", -1),
        ("ts", 1e12),
        ("ts", True),
        ("user_id", ""),
        ("user_id", "line\nbreak"),
        ("user_id", "trailing\n"),
        ("user_id", 7),
        ("video_id", "v" * 257),
        ("query", ""),
        ("query", "   "),
        ("query", "q" * 513),
        ("position", -1),
        ("type", "tap"),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(field: str, value: object) -> None:
    with pytest.raises(InvalidEventError, match=rf"\$\.{field}"):
        parse(orjson.dumps({**CLICK, field: value}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"type":"click","ts":NaN}',
        b'{"type":"click","event_id":"\\ud800"}',
        b"[" * 100_000,
        orjson.dumps(CLICK)[:-3],
    ],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidEventError):
        parse(data)


def test_a_megabyte_is_refused_before_it_is_decoded() -> None:
    data = orjson.dumps({**CLICK, "query": "q" * 1_000_000})
    with pytest.raises(InvalidEventError, match=f"at most {MAX_EVENT_BYTES:,}"):
        parse(data)


@given(events())
def test_the_key_keeps_one_videos_events_together(event: Event) -> None:
    video_id = getattr(event, "video_id", msgspec.UNSET)
    if video_id is not msgspec.UNSET:
        assert event.key == video_id
    else:
        assert event.key == event.user_id  # type: ignore[union-attr]


@pytest.mark.parametrize("ts", ["2026-01-01T00:00:00Z", 1_760_000_000_000])
def test_a_time_of_another_kind_is_told_what_was_expected(ts: str | int) -> None:
    data = orjson.dumps({"type": "impression", "event_id": "e", "video_id": "v", "ts": ts})
    with pytest.raises(InvalidEventError, match=r"\(UTC epoch seconds; .* mapping.*at `\$.ts`$"):
        parse(data)
