"""Fields sort as their pairs do, the cut is exact, and the ranking does not move with time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.buckets import (
    MAX_BUCKETS,
    BucketRangeError,
    CorruptStateError,
    add_asker,
    asker_of,
    bucket_prefix,
    decode_anchors,
    decode_counts,
    decode_field,
    merge_neighbors,
    newest,
    rank_anchors,
    showable,
)
from onebar.policy import MAX_SHOWABLE_USERS, StatePolicy
from onebar.records import Anchor, QueryCounts

pairs = st.tuples(st.integers(0, MAX_BUCKETS - 1), st.text(max_size=8))
POLICY = StatePolicy(half_life_s=3600.0, bucket_s=600.0)


def field(bucket: int, query: str) -> str:
    return bucket_prefix(bucket) + query


@given(pairs)
def test_a_field_decodes_to_its_pair(pair: tuple[int, str]) -> None:
    assert decode_field(field(*pair).encode()) == pair


@given(pairs, pairs)
def test_fields_sort_as_pairs_do(a: tuple[int, str], b: tuple[int, str]) -> None:
    assert (field(*a).encode() < field(*b).encode()) == (a < b)


@pytest.mark.parametrize("bucket", [-1, MAX_BUCKETS])
def test_a_bucket_out_of_range_is_named(bucket: int) -> None:
    with pytest.raises(BucketRangeError, match="time bucket"):
        bucket_prefix(bucket)


@given(st.dictionaries(pairs, st.integers(), max_size=20), st.integers(1, 20))
def test_the_cut_keeps_the_greatest(entries: dict[tuple[int, str], int], limit: int) -> None:
    assert newest(entries, limit) == {k: entries[k] for k in sorted(entries)[-limit:]}


@given(st.dictionaries(pairs, st.integers(), max_size=12), st.integers(1, 5), st.data())
def test_cutting_as_we_go_changes_nothing(
    entries: dict[tuple[int, str], int], limit: int, data: st.DataObject
) -> None:
    so_far: dict[tuple[int, str], int] = {}
    for key in data.draw(st.permutations(sorted(entries))):
        so_far = dict(newest({**so_far, key: entries[key]}, limit))
    assert so_far == newest(entries, limit)


def test_hashes_decode_cut() -> None:
    hashed = {b"000001a": b"5", b"000002b": b"7", b"0000020": b"9"}
    assert decode_anchors(hashed, 2) == ({(2, "b"): 7, (2, "0"): 9}, {(2, "b"): (), (2, "0"): ()})
    by_two = {b"000001a": b"5 0000000000010000000000af"}
    assert decode_anchors(by_two, 2)[1] == {(1, "a"): ("000000000001", "0000000000af")}
    counted = {b"000001a": b"1 2 3", b"000002b": b"4 5 6"}
    assert decode_counts(counted, 1) == {(2, "b"): QueryCounts(4, 5, 6)}


@pytest.mark.parametrize("field", [b"", b"00000", b"zz zzzq", b"000001\xff"])
def test_a_strange_field_is_named(field: bytes) -> None:
    with pytest.raises(CorruptStateError):
        decode_field(field)


@pytest.mark.parametrize("value", [b"", b"1 2", b"1 2 x", b"1 2 3 4"])
def test_strange_counts_are_named(value: bytes) -> None:
    with pytest.raises(CorruptStateError):
        decode_counts({b"000001a": value}, 5)


@pytest.mark.parametrize("value", [b"1.5", b"", b"1 abc", b"1 00000000000 ", b"1 00000000000\xff"])
def test_a_strange_weight_is_named(value: bytes) -> None:
    with pytest.raises(CorruptStateError):
        decode_anchors({b"000001a": value}, 5)


users = st.lists(st.integers(0, 40).map(lambda n: asker_of(f"u{n}", "v", "q")), max_size=30)


@given(users, st.data())
def test_the_users_kept_are_the_same_in_any_order_and_enough_for_any_threshold(
    asked: list[str], data: st.DataObject
) -> None:
    def kept(order: list[str]) -> tuple[str, ...]:
        askers: tuple[str, ...] = ()
        for asker in order:
            askers = add_asker(askers, asker)
        return askers

    again = data.draw(st.permutations(asked + data.draw(st.lists(st.sampled_from(asked or [""])))))
    found = kept(asked)
    assert kept([user for user in again if user]) == found
    assert len(found) == min(len(set(asked)), MAX_SHOWABLE_USERS)
    assert set(found) <= set(asked)


spread = st.dictionaries(
    st.tuples(st.integers(0, 9), st.sampled_from("ab")), st.sets(st.integers(0, 9)), max_size=12
)


@given(spread, st.integers(1, MAX_SHOWABLE_USERS), st.integers(1, 10), st.integers(0, 11))
def test_the_threshold_is_exact_over_the_buckets_of_the_lookback(
    asked: dict[tuple[int, str], set[int]], users: int, buckets: int, at: int
) -> None:
    policy = StatePolicy(bucket_s=10.0, showable_users=users, showable_lookback_s=buckets * 10.0)
    kept = {}
    for (bucket, query), numbers in asked.items():
        askers: tuple[str, ...] = ()
        for number in numbers:
            askers = add_asker(askers, asker_of(str(number), "v", query))
        kept[bucket, query] = askers
    may_be_shown = showable(kept, policy, now=at * 10.0)
    for query in "ab":
        since = max(0, at - buckets)
        everyone = {n for (b, q), ns in asked.items() if q == query and b >= since for n in ns}
        assert may_be_shown(query) == (users == 1 or len(everyone) >= users)


def test_a_user_is_another_one_under_another_query_or_video() -> None:
    named = {asker_of("u", "v", "q"), asker_of("u", "v", "r"), asker_of("u", "w", "q")}
    assert len(named | {asker_of("u", "v", "q")}) == 3


def test_weights_halve_with_each_half_life() -> None:
    entries = {(0, "old"): 4000, (6, "new"): 1000}  # six buckets of 600 s are one half-life
    old, new = rank_anchors(entries, POLICY, now=7 * 600.0)
    assert (old.query, new.query) == ("old", "new")
    assert old.weight == pytest.approx(2.0)
    assert new.weight == pytest.approx(1.0)
    later = rank_anchors(entries, POLICY, now=7 * 600.0 + 3600.0)
    assert [anchor.weight for anchor in later] == pytest.approx([1.0, 0.5])


def test_a_query_sums_over_its_buckets() -> None:
    [anchor] = rank_anchors({(0, "a"): 2000, (6, "a"): 1000}, POLICY, now=0.0)
    assert anchor.weight == pytest.approx(2.0)


entries_of_queries = st.dictionaries(
    st.tuples(st.integers(0, 400_000), st.sampled_from("abcdeé中")),
    st.integers(1, 10**6),
    max_size=20,
)
moments = st.floats(0, 2**33)


@given(entries_of_queries, moments, moments)
def test_time_alone_never_changes_the_order(
    entries: dict[tuple[int, str], int], now: float, later: float
) -> None:
    ranked = rank_anchors(entries, POLICY, now)
    assert [a.query for a in ranked] == [a.query for a in rank_anchors(entries, POLICY, later)]
    assert {a.query for a in ranked} == {query for _, query in entries}
    weights = [a.weight for a in ranked]
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 and math.isfinite(weight) for weight in weights)


@given(entries_of_queries, st.data())
def test_the_ranking_does_not_depend_on_the_order_read(
    entries: dict[tuple[int, str], int], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(sorted(entries.items()))))
    assert rank_anchors(shuffled, POLICY, 1e9) == rank_anchors(entries, POLICY, 1e9)


def test_equal_weights_are_ordered_by_query() -> None:
    ranked = rank_anchors({(1, "b"): 1000, (1, "中"): 1000, (1, "a"): 1000}, POLICY, 0.0)
    assert [anchor.query for anchor in ranked] == ["a", "b", "中"]


def test_neighbors_follow_and_never_repeat() -> None:
    behavior = (Anchor("a", 2.0), Anchor("b", 1.0))
    neighbors = (Anchor("b", 9.0, "neighbor"), Anchor("c", 8.0, "neighbor"))
    assert merge_neighbors(behavior, neighbors, 10) == (*behavior, neighbors[1])
    assert merge_neighbors(behavior, neighbors, 2) == behavior
    assert merge_neighbors(behavior, neighbors, 1) == behavior[:1]
    assert merge_neighbors((), neighbors, 1) == neighbors[:1]
