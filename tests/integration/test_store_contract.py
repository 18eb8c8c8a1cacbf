"""The contract suite: whatever the order, the repeats and the crashes, Redis holds what one clean
pass over the log leaves in memory."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fixtures import STRICT, fresh_store, run, unsealed

from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot, diff
from feature_store.store import ApplyStats
from feature_store.writes import (
    BehaviorAdd,
    HistoryPut,
    Position,
    ReactionPut,
    RulePut,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.records import Rule, VideoText
from stream.events.fold import REMOVED

pytestmark = pytest.mark.integration


Step = tuple[Write, Position]

video_ids = st.sampled_from(["v", "v}:a", "视频 %7d\n"])
user_ids = st.sampled_from(["u", "v", "{u:u}"])
queries = st.sampled_from(["a", "B", "ab", "a b", "é", "z", "中文", "ﬀ", "𝒳", "\n", "0"])
event_ids = st.sampled_from(["e1", "E1", "é", "e 1", "e"])
times = st.one_of(
    st.sampled_from([0.0, -0.0, 9.999999999999998, 10.0, 20.1, 30.000000000000004, 2**33 - 1.0]),
    st.floats(0, 60),
)
weights = st.integers(1, 5000)

video_puts = st.builds(
    VideoPut,
    video_ids,
    times,
    event_ids,
    st.builds(VideoText, title=queries, ocr=queries) | st.just(REMOVED),
)
behavior_adds = st.builds(
    BehaviorAdd,
    video_ids,
    times,
    st.just(""),
    st.lists(st.tuples(queries, weights), max_size=3).map(tuple),
    st.lists(queries, max_size=3).map(tuple),
    st.lists(queries, max_size=2).map(tuple),
    st.lists(queries, max_size=2).map(tuple),
    st.sampled_from(["", "u", "v", "{u:u}", *(f"u{n}" for n in range(12))]),
    st.sampled_from(["search", "click"]),
)
history_puts = st.builds(HistoryPut, user_ids, queries, times)
reaction_puts = st.builds(
    ReactionPut,
    user_ids,
    times,
    event_ids,
    st.sampled_from(["shown", "tapped", "ordered"]),
    st.lists(queries, max_size=3, unique=True).map(tuple),
)
deletions = st.builds(UserDelete, user_ids, times)
rule_puts = st.builds(
    RulePut,
    st.sampled_from(["r", "规则", "r}:x"]),
    times,
    event_ids,
    st.none() | st.builds(Rule, st.just("r"), st.just("block"), query=queries, who=queries),
)
writes = st.one_of(
    *(video_puts, behavior_adds, behavior_adds, history_puts, history_puts),
    *(reaction_puts, reaction_puts, deletions, rule_puts),
)


Taken = tuple[Write, float]
"""A write, and when the log took it."""


@st.composite
def logs(draw: st.DrawFn) -> list[Taken]:
    """Writes as a log takes them, some of them again and again, at any time. One event_id has one
    effect, a video's (ts, event_id) too, and one kind of behaviour of a user's one weight."""
    log: list[Write] = []
    versions: dict[tuple[str, float, str], VideoPut] = {}
    made: dict[tuple[str, float, str], RulePut] = {}
    for number, write in enumerate(draw(st.lists(writes, max_size=14))):
        match write:
            case VideoPut():
                key = (write.video_id, write.ts, write.event_id)
                log.append(versions.setdefault(key, write))
            case RulePut():
                log.append(made.setdefault((write.rule_id, write.ts, write.event_id), write))
            case BehaviorAdd():
                if write.user_id:
                    anchors = tuple((query, 1000) for query, _ in write.anchors)
                    write = msgspec.structs.replace(write, anchors=anchors)
                log.append(msgspec.structs.replace(write, event_id=f"事件 {number}"))
            case _:
                log.append(write)
    repeats = draw(st.lists(st.sampled_from(log), max_size=8)) if log else []
    return [(write, draw(times)) for write in log + repeats]


def clean_pass(log: Sequence[Taken]) -> StateSnapshot:
    store = MemoryStore(STRICT)
    for offset, (write, taken) in enumerate(log):
        store.apply(write, Position("t", 0, offset, taken))
    return store.snapshot()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Taken], list[list[Step]]]:
    """A log, and one way it may be delivered: events land in two partitions in any order; each
    partition is read in batches, and each batch may turn the reader back to anywhere before."""
    log = draw(logs())
    partitions: list[list[Step]] = [[], []]
    for write, taken in draw(st.permutations(log)):
        number = draw(st.integers(0, 1))
        position = Position("behaviors", number, 10 * len(partitions[number]), taken)
        partitions[number].append((write, position))
    reached = [0, 0]
    rewinds = 4
    batches: list[list[Step]] = []
    while any(reached[i] < len(partitions[i]) for i in (0, 1)):
        batch: list[Step] = []
        for number in draw(st.sampled_from([(0,), (1,), (0, 1), (1, 0)])):
            end = reached[number] + draw(st.integers(1, 5))
            batch += partitions[number][reached[number] : end]
            reached[number] = min(end, len(partitions[number]))
        batches.append(batch)
        if rewinds and draw(st.booleans()):
            rewinds -= 1
            number = draw(st.integers(0, 1))
            reached[number] = draw(st.integers(0, reached[number]))
    return log, batches


@given(deliveries())
@settings(max_examples=200)
def test_memory_reaches_the_state_of_a_clean_pass(
    delivery: tuple[list[Taken], list[list[Step]]],
) -> None:
    log, batches = delivery
    store = MemoryStore(STRICT)
    for batch in batches:
        for write, position in batch:
            store.apply(write, position)
    assert diff(clean_pass(log), store.snapshot()) == []


@given(deliveries(), st.sets(st.integers(0, 12), max_size=3))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_redis_reaches_the_state_of_a_clean_pass(
    redis_url: str, delivery: tuple[list[Taken], list[list[Step]]], flushes: set[int]
) -> None:
    log, batches = delivery

    async def check() -> None:
        memory = MemoryStore(STRICT)
        async with fresh_store(redis_url, STRICT) as store:
            for number, batch in enumerate(batches):
                if number in flushes:
                    await store.client.script_flush()
                stats = await store.apply(batch)
                assert stats.applied + stats.fenced + stats.duplicates == len(batch)
                for write, position in batch:
                    memory.apply(write, position)
            expected = clean_pass(log)
            found = await store.dump()
            assert diff(expected, found) == []
            assert found == expected
            pairs = [(v, u) for v in expected.videos for u in (*expected.users, None)]
            for counted in (False, True):
                features = await store.features(pairs, now=45.0, counted=counted)
                expected_features = memory.features(pairs, now=45.0, counted=counted)
                assert [unsealed(f) for f in features] == expected_features
            for video_id in expected.videos:
                assert await store.counts(video_id) == memory.counts(video_id)
                anchors = await store.anchors(video_id, now=45.0)
                assert anchors == memory.anchors(video_id, now=45.0)
            changed = await store.rules_since(0)
            assert changed == {name: state.rule for name, state in expected.rules.items()}
            assert (await store.rules_version() > 0) is bool(changed)
            for user_id in expected.users:
                assert await store.history(user_id) == memory.history(user_id)

    run(check())


@given(logs())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_batch_or_many_is_the_same(redis_url: str, log: list[Taken]) -> None:
    steps: list[Step] = [(w, Position("t", 0, at, taken)) for at, (w, taken) in enumerate(log)]

    async def check() -> None:
        async with fresh_store(redis_url, STRICT) as one, fresh_store(redis_url, STRICT) as many:
            total = await one.apply(steps)
            stats = [await many.apply([step]) for step in steps]
            assert total == ApplyStats(
                sum(s.applied for s in stats),
                sum(s.fenced for s in stats),
                sum(s.duplicates for s in stats),
            )
            assert await one.dump() == await many.dump()

    run(check())
