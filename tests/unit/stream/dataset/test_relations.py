"""Relations mined from a log: what led to what, and nothing of the future."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from onebar.embedding.relations import EmptyRelationsError, RelationSet
from stream.archive.reader import open_archive
from stream.archive.writer import archive_log
from stream.dataset.relations import RelationsConfig, mine_relations
from stream.dataset.tables import COLUMNS
from stream.events import Click, Deletion, Engagement, Event, Search, Video, encode
from stream.logs.files import EventLog

T0 = 1_767_571_200.0


def mine(
    directory: Path, events: Iterable[Event], config: RelationsConfig | None = None
) -> RelationSet:
    log = directory / "log.jsonl"
    log.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    archive_log(EventLog(log), directory / "archive")
    opened = open_archive(directory / "archive")
    files = {name: opened.table_glob(name) for name in COLUMNS}
    return mine_relations(files, directory / "relations", config or RelationsConfig())


def pairs(found: RelationSet) -> set[tuple[str, str, str, int]]:
    return {(r.kind, r.left, r.right, r.count) for r in found.read()}


def video(name: str, title: str, ts: float = T0) -> Video:
    return Video(event_id=f"{name}-{ts}", ts=ts, video_id=name, title=title)


def search(
    number: int, query: str, ts: float, *, user: str = "u", under: str | None = None
) -> Search:
    where = {} if under is None else {"video_id": under}
    return Search(event_id=f"s{number}", ts=ts, user_id=user, query=query, **where)


def click(number: int, query: str, ts: float, *, user: str = "u", under: str = "v") -> Click:
    return Click(event_id=f"c{number}", ts=ts, user_id=user, query=query, video_id=under)


def test_each_kind(tmp_path: Path) -> None:
    found = mine(
        tmp_path,
        [
            video("v", "Red shoes"),
            search(1, "Shoes ", T0 + 10),
            click(1, "shoes", T0 + 30),
            search(2, "red shoes", T0 + 60, under="v"),
            search(3, "trail shoes", T0 + 70, under="v"),
            click(2, "lamp", T0 + 5000, user="w"),
            Engagement(
                event_id="e", ts=T0 + 5010, user_id="w", query="lamp", video_id="v", kind="order"
            ),
        ],
    )
    assert pairs(found) == {
        ("v2q", "Red shoes", "shoes", 1),
        ("v2q", "Red shoes", "red shoes", 1),
        ("v2q", "Red shoes", "trail shoes", 1),
        ("v2q", "Red shoes", "lamp", 1),
        ("q2v", "shoes", "Red shoes", 1),
        ("q2v", "lamp", "Red shoes", 1),
        ("q2q", "shoes", "red shoes", 1),
        ("q2q", "red shoes", "trail shoes", 1),
    }


def test_nothing_of_the_future_is_in_them(tmp_path: Path) -> None:
    """A tap, a title and a reformulation from after the end are planted, and not found."""
    end = T0 + 100
    planted = [
        click(9, "planted", end + 1),
        video("v", "Planted title", end + 1),
        search(9, "planted again", end + 2, under="v"),
    ]
    past = [video("v", "Red shoes"), click(1, "shoes", T0 + 30)]
    found = mine(tmp_path, [*past, *planted], RelationsConfig(until=end))
    assert pairs(found) == {("v2q", "Red shoes", "shoes", 1)}
    assert found.card.until == end


def test_what_was_long_ago_or_elsewhere_is_no_reformulation(tmp_path: Path) -> None:
    found = mine(
        tmp_path,
        [
            video("v", "Red shoes"),
            video("w", "Blue lamp"),
            click(1, "shoes", T0),
            click(2, "lamp", T0 + 10, under="w"),
            search(3, "boots", T0 + 10_000),
        ],
    )
    assert {kind for kind, *_ in pairs(found)} == {"v2q"}


def test_deleted_users_are_forgotten(tmp_path: Path) -> None:
    found = mine(
        tmp_path,
        [
            video("v", "Red shoes"),
            click(1, "shoes", T0 + 1),
            click(2, "boots", T0 + 2, user="gone"),
            Deletion(event_id="d", ts=T0 + 3, user_id="gone"),
            click(3, "sandals", T0 + 100, user="gone"),
        ],
    )
    assert {right for _, _, right, _ in pairs(found)} == {"shoes", "sandals"}


def test_what_is_seen_too_seldom_is_left_out(tmp_path: Path) -> None:
    events = [video("v", "Red shoes"), click(1, "rare", T0)]
    events += [click(n, "common", T0 + n * 1000.0, user=f"u{n}") for n in range(2, 5)]
    found = mine(tmp_path, events, RelationsConfig(min_count=3))
    assert pairs(found) == {("v2q", "Red shoes", "common", 3)}


def test_redelivered_events_count_once(tmp_path: Path) -> None:
    events = [video("v", "Red shoes"), *[click(1, "shoes", T0)] * 3]
    assert pairs(mine(tmp_path, events)) == {("v2q", "Red shoes", "shoes", 1)}


def test_a_log_that_ties_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmptyRelationsError, match="nothing to learn"):
        mine(tmp_path, [video("v", "Red shoes")])
    assert not (tmp_path / "relations").exists()
