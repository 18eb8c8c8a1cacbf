"""KuaiSearch as events: exact counts on the real set, and the mapping on a small one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.events import Click, Engagement, Exposure, Impression, Search, Video
from stream.logs.files import EmptyLogError, LogNotFoundError, TruncatedLogError
from stream.logs.kuaisearch import BASE_TS, KuaiSearchLog

ROOT = Path(__file__).resolve().parents[4]
DATA = Path(os.environ.get("ONEBAR_DATA") or ROOT.parent / "shared" / "data") / "kuaisearch_demo"


@pytest.fixture
def real() -> KuaiSearchLog:
    if not DATA.is_dir():
        reason = f"the KuaiSearch set is not at {DATA}; set ONEBAR_DATA to where the data is"
        if os.environ.get("CI") and os.environ.get("ONEBAR_DATA") != "none":
            pytest.fail(reason)
        pytest.skip(reason)
    return KuaiSearchLog(DATA)


def test_the_real_set_comes_out_whole(real: KuaiSearchLog) -> None:
    events = [entry.event for entry in real.entries()]
    assert Counter(type(event) for event in events) == {
        Video: 200,
        Search: 200,
        Impression: 25_430,
        Exposure: 25_430,
        Click: 583,
        Engagement: 19,
    }
    ids = {event.event_id for event in events if event is not None}
    assert len(ids) == len(events)
    times = [event.ts for event in events if event is not None]
    assert times == sorted(times)
    assert times[0] == BASE_TS
    # The order of the sessions is that of their time_index.
    rows = [json.loads(line) for line in (DATA / "recall.jsonl").open()]
    rows.sort(key=lambda row: row["time_index"])
    searches = [event for event in events if isinstance(event, Search)]
    assert [event.query for event in searches] == [row["query"] for row in rows]


def test_the_real_set_is_the_same_every_time(real: KuaiSearchLog) -> None:
    first = [entry.data for entry in real.entries()]
    again = list(KuaiSearchLog(DATA).entries())
    assert [entry.data for entry in again] == first
    assert list(real.entries(50_000)) == again[50_000:]


ITEM = {
    "item_id": 7,
    "item_title": "红色跑鞋",
    "brand_name": "无品牌",
    "seller_name": "小店",
    "category_level1_name": "鞋",
    "category_level2_name": "运动鞋",
    "category_level3_name": "UNKNOWN",
}


def session(number: int, time_index: int, **changes: Any) -> dict[str, Any]:
    return {
        "user_id": 3,
        "session_id": number,
        "time_index": time_index,
        "query": f"q{number}",
        "impressed_item_ids": [7, 8],
        "clicked_item_ids": [8],
        "purchased_item_ids": [8],
        "split": "train",
    } | changes


def write(
    directory: Path, items: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]]
) -> KuaiSearchLog:
    for name, rows in (("items", items), ("recall", sessions)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(text)
    return KuaiSearchLog(directory)


def test_the_mapping(tmp_path: Path) -> None:
    log = write(tmp_path, [ITEM], [session(2, 900), session(1, 100)])
    events: list[Any] = [entry.event for entry in log.entries()]
    video, *rest = events
    assert (video.video_id, video.title, video.author) == ("item-7", "红色跑鞋", "小店")
    assert (video.caption, video.category) == ("", "鞋 运动鞋")
    first, second = rest[:7], rest[7:]
    kinds = [Search, Impression, Exposure, Impression, Exposure, Click, Engagement]
    assert [type(event) for event in first] == [type(event) for event in second] == kinds
    assert first[0].query == "q1", "time_index 100 comes before 900, wherever it stands"
    assert {event.user_id for event in rest} == {"user-3"}
    assert [event.video_id for event in first[1:]] == [
        *("item-7", "item-7", "item-8", "item-8", "item-8", "item-8")
    ]
    assert [shown.position for event in first[2::2][:2] for shown in event.queries] == [0, 0]
    assert first[6].kind == "order"
    assert first[-1].ts < second[0].ts


def test_rows_that_are_wrong_are_told_and_passed(tmp_path: Path) -> None:
    log = write(
        tmp_path,
        [ITEM, {"item_id": "seven"}],
        [session(1, 5, query=4), {"session_id": 1}, session(2, 6), session(3, 7, query=" ")],
    )
    entries = list(log.entries())
    errors = [entry.error for entry in entries if entry.event is None]
    assert "items.jsonl, line 2" in errors[0]
    assert "recall.jsonl, line 2" in errors[1]
    assert "recall.jsonl, the row at byte 0" in errors[2]
    # A blank query: its search, exposures, click and order are no events; its impressions are.
    assert len(errors) == 3 + 5
    assert sum(isinstance(entry.event, Search) for entry in entries) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogNotFoundError, match=r"items\.jsonl"):
        KuaiSearchLog(tmp_path)
    write(tmp_path, [], [])
    with pytest.raises(EmptyLogError):
        list(KuaiSearchLog(tmp_path).entries())
    (tmp_path / "recall.jsonl").write_bytes(b'{"session_id": 1, "time_in')
    with pytest.raises(TruncatedLogError, match=r"recall\.jsonl"):
        list(KuaiSearchLog(tmp_path).entries())
