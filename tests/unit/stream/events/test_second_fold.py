"""The product's state is what `docs/events.md` says: a fold written from that page alone agrees."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import second_fold
from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st
from two_folds import first, second

from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot
from feature_store.writes import InvalidWriteError
from onebar.policy import DAY, StatePolicy
from stream.events import InvalidEventError
from stream.kafka.records import Record
from stream.workers.dead_letters import FutureEventError
from stream.workers.ingest import to_writes

START = 19_676 * DAY  # a border of windows and of buckets

BOOTS = st.sampled_from(["Boots", "boots ", " BOOTS", "boots\t"])
QUERIES = BOOTS | st.sampled_from(
    [
        *("red  boots", "Red\tBoots", "Cafe\u0301", "caf\u00e9", "跑步鞋", " 跑步鞋"),
        *("跑步鞋\u3000白色", "跑步鞋 白色", "雨靴 Nike", "  雨靴 NIKE\n", "t恤", "T恤"),
    ]
)
VIDEOS = st.sampled_from(["v1", "v2"])
USERS = st.sampled_from(["u1", "u2", "u3"])
TIMES = st.builds(
    lambda hours, more: START + hours * 3600 + more,
    st.integers(0, 60),
    st.sampled_from([0.0, 0.0, 0.25, -0.001, 59.999, 1234.5]),
)
TEXTS = st.sampled_from(["", "", "red boots", "白色 跑步鞋 #ad", "Boots!!! https://a.test"])
BROKEN = st.sampled_from(
    [b"\xff{", b"[]", b"{}", b'{"type":"nobody"}', b'{"type":"click"', b"null"]
)
LATER = st.one_of(
    st.sampled_from([0.0, 0.001, 5.0, -60.0, -60.001, -61.0, -3600.0]),
    st.builds(lambda days, more: days * DAY + more, st.integers(0, 5), st.floats(-7200, 7200)),
)
"""How long after its `ts` a record is kept."""
POLICIES = st.builds(
    StatePolicy,
    max_entries=st.sampled_from([1, 2, 4, 512]),
    history_size=st.sampled_from([1, 2, 20]),
    dedupe_window_s=st.sampled_from([DAY, 2 * 3600.0]),
    deletion_reach_s=st.sampled_from([60.0, 0.0]),
)


def _of(kind: str, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Events of a type; a field drawn as None is left out."""
    drawn = st.fixed_dictionaries({"type": st.just(kind), "ts": TIMES, **fields})
    return drawn.map(lambda event: {k: v for k, v in event.items() if v is not None})


PAIR: dict[str, st.SearchStrategy[Any]] = {"video_id": VIDEOS, "user_id": USERS}
SHOWN = st.builds(
    lambda query, position: {"query": query, "position": position}, QUERIES, st.just(0)
)
EVENTS = st.one_of(
    _of("search", user_id=USERS, query=QUERIES, video_id=VIDEOS | st.none()),
    _of("exposure", **PAIR, queries=st.lists(SHOWN, min_size=1, max_size=4)),
    _of("click", **PAIR, query=QUERIES, position=st.sampled_from([None, 0, 1, 5])),
    _of(
        "engagement",
        **PAIR,
        query=QUERIES,
        kind=st.sampled_from(["dwell", "item_click", "cart", "order"]),
        value=st.sampled_from([None, 0.0, 9.5]),
    ),
    _of("deletion", user_id=USERS),
    _of("removal", video_id=VIDEOS),
    _of("video", video_id=VIDEOS, title=TEXTS, caption=TEXTS, sensitive=st.booleans()),
    _of("rule", rule_id=VIDEOS, action=st.just("block"), query=st.just("boots")),
    _of("rule", rule_id=VIDEOS, action=st.just("remove")),
    _of("impression", video_id=VIDEOS),
)
TOPICS = {
    "video": "onebar.videos",
    "removal": "onebar.videos",
    "rule": "onebar.rules",
    "impression": "onebar.impressions",
}


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records by their partitions, many events more than once, at odd times."""
    events = draw(st.lists(EVENTS, min_size=draw(st.sampled_from([1, 12, 30])), max_size=40))
    kept: list[tuple[str, float, bytes | None, bytes]] = []
    for number, event in enumerate(events):
        value = json.dumps({**event, "event_id": f"e{number}"}, ensure_ascii=False).encode()
        for later in draw(st.lists(LATER, min_size=1, max_size=4)):
            topic = TOPICS.get(event["type"], "onebar.behaviors")
            kept.append((topic, round(event["ts"] + later, 3), None, value))
    tombstones = st.tuples(
        st.sampled_from(["onebar.videos", "onebar.rules"]),
        TIMES,
        VIDEOS.map(str.encode),
        st.just(b""),
    )
    broken = st.tuples(st.just("onebar.behaviors"), TIMES, st.none(), BROKEN)
    kept += draw(st.lists(tombstones | broken, max_size=3))
    draw(st.randoms(use_true_random=True)).shuffle(kept)
    ends: dict[tuple[str, int], int] = {}
    log = []
    for topic, timestamp, key, value in kept:
        partition = draw(st.integers(0, 2))
        offset = ends[topic, partition] = ends.get((topic, partition), -1) + 1
        log.append(Record(topic, partition, offset, timestamp, key, value))
    return log


@st.composite
def deliveries(draw: st.DrawFn, log: list[Record]) -> list[Record]:
    """All records: partitions in any order, each in its own, now and then from further back."""
    left: dict[tuple[str, int], list[Record]] = {}
    for record in log:
        left.setdefault((record.topic, record.partition), []).append(record)
    at = dict.fromkeys(left, 0)
    rng = draw(st.randoms(use_true_random=True))
    delivered = []
    while open_ := [name for name in left if at[name] < len(left[name])]:
        name = rng.choice(open_)
        delivered.append(left[name][at[name]])
        at[name] += 1
        if rng.random() < 0.1:
            back = rng.choice(list(left))
            at[back] = rng.randint(0, at[back])
    return delivered


def taken_in(records: list[Record], policy: StatePolicy) -> StateSnapshot:
    """What the product makes of records, as they come."""
    store = MemoryStore(policy)
    for record in records:
        try:
            _, writes = to_writes(record, policy.deletion_reach_s)
        except (InvalidEventError, FutureEventError, InvalidWriteError) as error:
            note(type(error).__name__)
            continue
        for write, position in writes:
            store.apply(write, position)
    return store.snapshot()


@given(st.data(), logs(), POLICIES)
def test_two_folds_of_a_log_agree(
    data: st.DataObject, log: list[Record], policy: StatePolicy
) -> None:
    delivered = data.draw(deliveries(log))
    expected = second(log, policy)
    assert first(taken_in(delivered, policy)) == expected
    data.draw(st.randoms(use_true_random=True)).shuffle(delivered)
    assert second(delivered, policy) == expected


def test_the_second_fold_shares_nothing_with_the_first() -> None:
    tree = ast.parse(Path(second_fold.__file__).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert names
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
