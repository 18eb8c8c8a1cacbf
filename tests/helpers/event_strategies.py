"""Events, and objects that are nearly events, for hypothesis."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st
from msgspec import UNSET

from onebar.records import TEXT_FIELDS
from stream.events import (
    Click,
    Deletion,
    Engagement,
    Event,
    Exposure,
    Impression,
    Removal,
    Search,
    ShownQuery,
    Video,
    encode,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
QUERIES = TEXT.filter(lambda text: any(not c.isspace() for c in text) and text.strip() != "")
TIMES = st.floats(0, 2**33, exclude_max=True, allow_nan=False)
MAYBE_ID = IDS | st.just(UNSET)
_COMMON: dict[str, Any] = {"event_id": IDS, "ts": TIMES}


def events() -> st.SearchStrategy[Event]:
    """Any event."""
    pair: dict[str, Any] = {**_COMMON, "video_id": IDS, "user_id": IDS}
    item = st.builds(
        ShownQuery,
        QUERIES,
        st.integers(0, 1000),
        st.just(UNSET) | st.floats(0, 1, exclude_min=True),
    )
    shown = st.lists(item, min_size=1, max_size=5)
    return st.one_of(
        st.builds(Video, **_COMMON, video_id=IDS, **dict.fromkeys(TEXT_FIELDS, TEXT)),
        st.builds(Impression, **_COMMON, video_id=IDS, user_id=MAYBE_ID),
        st.builds(Search, **_COMMON, user_id=IDS, query=QUERIES, video_id=MAYBE_ID),
        st.builds(Exposure, **pair, queries=shown),
        st.builds(Click, **pair, query=QUERIES, position=st.just(UNSET) | st.integers(0, 1000)),
        st.builds(
            Engagement,
            **pair,
            query=QUERIES,
            kind=st.sampled_from(["item_click", "cart", "order", "dwell"]),
            value=st.floats(0, 1e9),
        ),
        st.builds(Deletion, **_COMMON, user_id=IDS),
        st.builds(Removal, **_COMMON, video_id=IDS),
    )


_VALUES = st.one_of(
    IDS, TEXT, st.integers(-5, 2000), st.booleans(), st.none(), TIMES, st.just("a\n"), st.just([])
)


@st.composite
def json_objects(draw: st.DrawFn) -> dict[str, Any]:
    """An object with an event's type and some of its fields right, wrong or missing."""
    value: dict[str, Any] = orjson.loads(encode(draw(events())))
    for name in draw(st.lists(st.sampled_from(sorted(value)), max_size=2)):
        if draw(st.booleans()):
            value.pop(name, None)
        else:
            value[name] = draw(_VALUES)
    return value
