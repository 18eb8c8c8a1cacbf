"""Cached queries: whose they are, how long they are good for, and that they are forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
from store_fixtures import (
    HARD_S,
    NOW,
    SOFT_S,
    cached,
    fresh_store,
    key_names,
    result,
    small_cluster,
)

from feature_store.buckets import CorruptStateError
from feature_store.cache.codec import CachedBody, Lookup
from feature_store.cache.query_cache import RECENT_VIDEOS, QueryCache
from feature_store.store import FeatureStore
from feature_store.writes import UserDelete, VideoPut
from onebar.records import CacheEntry, Candidate, QueryResult, Seals, VideoText

pytestmark = pytest.mark.integration


async def test_what_was_put_is_found(query_cache: QueryCache) -> None:
    given = QueryResult(
        "视频", (Candidate('"a\\"', -0.5), Candidate("b", -1.5)), False, "m", "d", NOW
    )
    await query_cache.put([CacheEntry(given)])
    [lookup] = await query_cache.lookup([("视频", None)])
    assert lookup.personal is None
    body = lookup.video
    assert body is not None
    assert (body.generated_at, body.fresh_until) == (NOW, NOW + SOFT_S)
    assert body.result() == given
    answer = msgspec.json.decode(body.body + b',"source":"cache"}')
    assert answer.pop("source") == "cache"
    assert msgspec.convert(answer, QueryResult) == given


async def test_a_rejection_is_kept_too(query_cache: QueryCache) -> None:
    rejection = QueryResult("v", (), True, "m", "d", NOW)
    await query_cache.put([CacheEntry(rejection)])
    [lookup] = await query_cache.lookup([("v", "u")])
    assert lookup.personal is None
    assert lookup.video is not None
    assert lookup.video.result() == rejection


async def test_personal_queries_are_served_to_their_user_alone(query_cache: QueryCache) -> None:
    await query_cache.put(
        [
            CacheEntry(result("v", "for all", "d1")),
            CacheEntry(result("v", "for a", "d2"), "a"),
            CacheEntry(result("v", "for all", "d1"), "b", shared=True),
        ]
    )
    pairs = [("v", "a"), ("v", "b"), ("v", "c"), ("v", None), ("w", "a"), ("v:a", None)]
    assert [cached(lookup) for lookup in await query_cache.lookup(pairs)] == [
        ("for a", "for all"),
        ("for all", "for all"),
        (None, "for all"),
        (None, "for all"),
        (None, None),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("video_id", "user_id"),
    [("v}:q:a", "x"), ("v", "a:b"), ("v", ""), ("v:q", "a"), ("v", "A"), ("v", "a "), ("v", "%61")],
)
async def test_no_id_reaches_anothers_queries(
    query_cache: QueryCache, video_id: str, user_id: str
) -> None:
    await query_cache.put([CacheEntry(result("v", "secret"), "a")])
    [lookup, alone] = await query_cache.lookup([(video_id, user_id), (video_id, None)])
    assert lookup == alone == Lookup()


async def test_a_mark_without_a_video_is_a_miss(query_cache: QueryCache) -> None:
    await query_cache.put([CacheEntry(result("v", "q"), "u", shared=True)])
    assert await query_cache.lookup([("v", "u")]) == [Lookup()]


async def test_a_mark_ages_by_itself(query_cache: QueryCache) -> None:
    await query_cache.put([CacheEntry(result("v", "q", at=NOW - 100), "u", shared=True)])
    await query_cache.put([CacheEntry(result("v", "q"))])
    [lookup] = await query_cache.lookup([("v", "u")])
    assert lookup.personal is not None
    assert lookup.video is not None
    assert lookup.personal.fresh_until == NOW - 100 + SOFT_S
    assert lookup.video.fresh_until == NOW + SOFT_S
    assert lookup.personal.body == lookup.video.body


async def test_a_shared_entry_names_a_user(query_cache: QueryCache) -> None:
    with pytest.raises(ValueError, match="user_id"):
        await query_cache.put([CacheEntry(result("v", "q"), shared=True)])


async def test_a_digest_serves_everyone_and_names_no_one(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    personal = result("video-7", "q", "abc")
    await query_cache.put([CacheEntry(personal, "user-7")])
    found, missing = await query_cache.by_digest(["abc", "def"])
    assert missing is None
    assert found is not None
    assert found.result() == msgspec.structs.replace(personal, video_id="")
    stored = await small_store.client.get(small_store.keys.digest("abc"))
    assert b"user-7" not in stored
    assert b"video-7" not in stored


async def test_everything_expires_at_the_hard_ttl(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    await query_cache.put(
        [
            CacheEntry(result("v", "q")),
            CacheEntry(result("v", "q"), "a"),
            CacheEntry(result("v", "q"), "b", shared=True),
        ]
    )
    names = await key_names(small_store)
    assert len(names) == 7  # video, two users, two indexes, one digest, the recent videos
    for name in names:
        assert HARD_S - 60 < await small_store.client.ttl(name) <= HARD_S


async def test_the_recent_videos_are_the_newest(small_store: FeatureStore) -> None:
    now = NOW
    cache = QueryCache(small_store.client, small_store.keys, SOFT_S, HARD_S, clock=lambda: now)
    for number in range(RECENT_VIDEOS + 3):
        now += 1
        await cache.put([CacheEntry(result(f"v{number}", "q")), CacheEntry(result("v0", "q"), "u")])
    recent = await small_store.recent_videos(1000)
    assert recent[:3] == [
        (f"v{RECENT_VIDEOS + 2}", now),
        ("v0", now),
        (f"v{RECENT_VIDEOS + 1}", now - 1),
    ]
    assert len(recent) == RECENT_VIDEOS
    assert await small_store.recent_videos(2) == recent[:2]


async def test_the_index_forgets_what_expired(small_store: FeatureStore) -> None:
    now = NOW
    cache = QueryCache(small_store.client, small_store.keys, SOFT_S, HARD_S, clock=lambda: now)
    await cache.put([CacheEntry(result("v1", "q"), "u")])
    now += HARD_S / 2
    await cache.put([CacheEntry(result("v2", "q"), "u")])
    now += HARD_S / 2
    await cache.put([CacheEntry(result("v3", "q"), "u")])
    index = small_store.keys.personal_videos("u")
    assert await small_store.client.zrange(index, 0, -1) == [b"v2", b"v3"]


@pytest.mark.parametrize("how", ["delete_user", "apply"])
async def test_a_deleted_user_loses_personal_queries(
    query_cache: QueryCache, small_store: FeatureStore, how: str
) -> None:
    await query_cache.put(
        [
            CacheEntry(result("v1", "all")),
            CacheEntry(result("v1", "mine"), "u"),
            CacheEntry(result("v 2}", "mine"), "u"),
            CacheEntry(result("v1", "all"), "other", shared=True),
        ]
    )
    if how == "apply":
        await small_store.apply([(UserDelete("u", NOW), None)])
    else:
        await small_store.delete_user("u", NOW)
    mine, second, other = await query_cache.lookup([("v1", "u"), ("v 2}", "u"), ("v1", "other")])
    assert cached(mine) == (None, "all")
    assert second == Lookup()
    assert cached(other) == ("all", "all")
    names = await key_names(small_store)
    keys = small_store.keys
    for name in (
        keys.cached_for("v1", "u"),
        keys.cached_for("v 2}", "u"),
        keys.personal_videos("u"),
    ):
        assert name not in names


async def test_what_was_made_before_a_deletion_is_not_served_after_it(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    """A generation that read the history just before may write long after: by a worker that slept
    meanwhile, on a machine whose clock is wrong."""
    await query_cache.put([CacheEntry(result("v", "all"))])
    before = await seals_of(small_store, "v", "u")
    await small_store.delete_user("u", 1.0)
    stale = result("v", "old", at=2 * NOW)
    for shared in (False, True):
        entry = CacheEntry(stale, "u", shared, before)
        assert await query_cache.put([entry]) == [False]
        assert [cached(x) for x in await query_cache.lookup([("v", "u")])] == [(None, "all")]
    after = await seals_of(small_store, "v", "u")
    assert after != before
    assert await query_cache.put([CacheEntry(result("v", "new", at=2 * NOW), "u", False, after)])
    assert [cached(x) for x in await query_cache.lookup([("v", "u")])] == [("new", "all")]


async def seals_of(store: FeatureStore, video_id: str, user_id: str | None = None) -> Seals:
    [features] = await store.features([(video_id, user_id)])
    return features.seals


def text_put(ts: float, text: VideoText) -> tuple[VideoPut, None]:
    return VideoPut("v", ts, f"e{ts}", text), None


@pytest.mark.parametrize(
    "changed", [VideoText(title="b"), VideoText(title="a", sensitive=True), VideoText(removed=True)]
)
async def test_what_was_made_of_another_text_is_void_at_once(
    query_cache: QueryCache, small_store: FeatureStore, changed: VideoText
) -> None:
    await small_store.apply([text_put(1.0, VideoText(title="a"))])
    seals = await seals_of(small_store, "v", "u")
    entries = [
        CacheEntry(result("v", "all"), seals=seals),
        CacheEntry(result("v", "mine"), "u", seals=seals),
        CacheEntry(result("v", "all"), "w", shared=True, seals=seals),
    ]
    pairs = [("v", "u"), ("v", "w"), ("v", None)]
    assert await query_cache.put(entries) == [True, True, True]
    found = [("mine", "all"), ("all", "all"), (None, "all")]
    assert [cached(lookup) for lookup in await query_cache.lookup(pairs)] == found

    await small_store.apply([text_put(0.5, changed)])  # an older one changes nothing
    assert [cached(lookup) for lookup in await query_cache.lookup(pairs)] == found
    await small_store.apply([text_put(2.0, changed)])
    assert await query_cache.lookup(pairs) == [Lookup()] * 3
    assert await query_cache.put(entries) == [False, False, False]
    assert await query_cache.lookup(pairs) == [Lookup()] * 3

    seals = await seals_of(small_store, "v")
    assert await query_cache.put([CacheEntry(result("v", "other"), seals=seals)]) == [True]
    assert await query_cache.put(entries) == [False, False, False]
    found = [(None, "other"), (None, "other"), (None, "other")]
    assert [cached(lookup) for lookup in await query_cache.lookup(pairs)] == found


async def test_a_text_that_comes_again_voids_nothing(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    await small_store.apply([text_put(1.0, VideoText(title="a"))])
    entry = CacheEntry(result("v", "q"), seals=await seals_of(small_store, "v"))
    await query_cache.put([entry])
    await small_store.apply([text_put(2.0, VideoText(title="a"))])
    assert [cached(lookup) for lookup in await query_cache.lookup([("v", None)])] == [(None, "q")]


async def test_what_a_video_had_before_its_text_is_void_with_it(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    await query_cache.put([CacheEntry(result("v", "q"))])
    assert [cached(lookup) for lookup in await query_cache.lookup([("v", None)])] == [(None, "q")]
    await small_store.apply([text_put(2.0, VideoText(title="a"))])
    assert await query_cache.lookup([("v", None)]) == [Lookup()]


async def test_older_evidence_never_replaces_newer(query_cache: QueryCache) -> None:
    for user_id in (None, "u"):
        old, new, newest = (
            CacheEntry(result("v", query, at=NOW + second), user_id)
            for query, second in (("old", 0), ("new", 5), ("newest", 5))
        )
        await query_cache.put([new])
        assert await query_cache.put([old]) == [True]  # as good as any, but not kept
        [lookup] = await query_cache.lookup([("v", user_id)])
        assert "new" in cached(lookup)
        await query_cache.put([newest])
        [lookup] = await query_cache.lookup([("v", user_id)])
        assert "newest" in cached(lookup)


async def test_a_clock_that_was_ahead_keeps_nothing_out(query_cache: QueryCache) -> None:
    await query_cache.put([CacheEntry(result("v", "ahead", at=time.time() + 3600))])
    await query_cache.put([CacheEntry(result("v", "now", at=time.time()))])
    [lookup] = await query_cache.lookup([("v", None)])
    assert cached(lookup) == (None, "now")


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "cut", "foreign", "other type"])
async def test_a_damaged_value_is_a_miss(
    query_cache: QueryCache, small_store: FeatureStore, damage: str
) -> None:
    client, keys = small_store.client, small_store.keys
    await query_cache.put([CacheEntry(result("v", "q"), "u"), CacheEntry(result("v", "q"))])
    for name in (keys.cached("v"), keys.cached_for("v", "u"), keys.digest("d")):
        value = await client.get(name)
        await client.delete(name)
        if damage == "other type":
            if name != keys.digest("d"):
                await client.hset(name, "f", "x")
            continue
        damaged = {
            "empty": b"",
            "short": value[:10],
            "flipped": value[:-1] + b"\0",
            "cut": value[:-3],
            "foreign": b"OBQ9" + value[4:],
        }[damage]
        await client.set(name, damaged)
    assert await query_cache.lookup([("v", "u")]) == [Lookup()]
    assert await query_cache.by_digest(["d"]) == [None]


def test_a_body_that_is_none_is_named() -> None:
    with pytest.raises(CorruptStateError):
        CachedBody(0.0, 0.0, b'{"video_id":3').result()


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with small_cluster() as url:
        yield url


async def test_a_cluster_caches_alike(cluster_url: str) -> None:
    async with fresh_store(cluster_url) as store:
        cache = QueryCache(store.client, store.keys, SOFT_S, HARD_S)
        entries = [CacheEntry(result(f"v{i}", f"q{i}", f"d{i}"), "u") for i in range(20)]
        await cache.put(entries)
        pairs = [(f"v{i}", "u") for i in range(20)]
        found = await cache.lookup(pairs)
        assert [cached(lookup)[0] for lookup in found] == [f"q{i}" for i in range(20)]
        assert None not in await cache.by_digest([f"d{i}" for i in range(20)])
        await store.delete_user("u", NOW)
        assert await cache.lookup(pairs) == [Lookup()] * 20


async def test_a_deletion_nobody_can_read_hides_personal_queries(
    query_cache: QueryCache, small_store: FeatureStore
) -> None:
    await query_cache.put([CacheEntry(result("v", "mine"), "u"), CacheEntry(result("v", "all"))])
    await small_store.client.set(small_store.keys.deletion("u"), "what?")
    assert [cached(x) for x in await query_cache.lookup([("v", "u")])] == [(None, "all")]


async def test_nothing_asked_or_put_is_nothing_sent(query_cache: QueryCache) -> None:
    await query_cache.put([])
    assert await query_cache.lookup([]) == []
    assert await query_cache.by_digest([]) == []
