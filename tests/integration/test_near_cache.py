"""Cached queries kept in this process: what Redis has, without asking it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
from store_fixtures import HARD_S, NOW, TIMEOUT_S, cached, result

from feature_store.cache.codec import CachedBody, Lookup
from feature_store.cache.near_cache import NearCache
from feature_store.cache.query_cache import QueryCache
from feature_store.redis.client import ConnectedRedis, connect
from feature_store.store import FeatureStore
from feature_store.writes import VideoPut
from onebar.records import CacheEntry, Pair, VideoText

pytestmark = pytest.mark.integration

MIB = 2**20


class Near:
    """A near cache, and how often it asked Redis for anything."""

    def __init__(self, url: str, query_cache: QueryCache, limit_bytes: int = MIB) -> None:
        self.asked = 0
        self.cache = NearCache(query_cache, partial(self._connect, url), limit_bytes=limit_bytes)

    def _connect(self, url: str, *, watcher: Any) -> ConnectedRedis:
        client = connect(url, timeout_s=TIMEOUT_S, watcher=watcher)
        assert isinstance(client, ConnectedRedis)
        call = client.shared.call

        async def counted(commands: Sequence[Sequence[Any]]) -> list[Any]:
            self.asked += sum(words[0] == "MGET" for words in commands)
            return await call(commands)

        client.shared.call = counted  # type: ignore[method-assign,assignment]
        self.client = client
        return client

    async def look(self, *pairs: Pair) -> list[tuple[str | None, str | None]]:
        return [cached(found) for found in await self.cache.lookup(pairs)]

    def at_hand(self, pair: Pair, now: float = NOW) -> str | None:
        [body] = self.cache.at_hand([pair], now)
        return first(body)


def first(body: CachedBody | None) -> str | None:
    return None if body is None else body.result().queries[0].text


@pytest.fixture
async def near(redis_url: str, query_cache: QueryCache) -> AsyncIterator[Near]:
    near = Near(redis_url, query_cache)
    yield near
    await near.cache.close()


async def test_what_was_read_is_at_hand_until_it_changes(
    near: Near, query_cache: QueryCache
) -> None:
    pairs: list[Pair] = [("v", "u"), ("v", None)]
    await query_cache.put([CacheEntry(result("v", "mine"), "u"), CacheEntry(result("v", "all"))])
    assert near.at_hand(("v", "u")) is None
    assert await near.look(*pairs) == [("mine", "all"), (None, "all")]
    assert [near.at_hand(pair) for pair in pairs] == ["mine", "all"]
    assert near.asked == 1
    await query_cache.put([CacheEntry(result("v", "new"), "u")])
    await near.cache.settle()
    assert [near.at_hand(pair) for pair in pairs] == [None, "all"]
    assert await near.look(*pairs) == [("new", "all"), (None, "all")]
    assert near.asked == 2


async def test_a_body_that_is_not_there_is_asked_for_each_time(
    near: Near, query_cache: QueryCache
) -> None:
    assert await near.look(("v", "u")) == [(None, None)]
    assert near.at_hand(("v", "u")) is None
    await query_cache.put([CacheEntry(result("v", "mine"), "u")])
    await near.cache.settle()
    assert await near.look(("v", "u")) == [("mine", None)]
    assert near.at_hand(("v", "u")) == "mine"


async def test_a_mark_stands_for_the_video_as_it_is_now(
    near: Near, query_cache: QueryCache
) -> None:
    old = result("v", "all", at=NOW - 100)
    await query_cache.put([CacheEntry(old, "u", shared=True), CacheEntry(result("v", "all"))])
    [expected] = await query_cache.lookup([("v", "u")])
    assert await near.cache.lookup([("v", "u")]) == [expected]
    assert near.cache.at_hand([("v", "u")], NOW) == [expected.personal]
    await query_cache.put([CacheEntry(result("v", "other"))])
    await near.cache.settle()
    assert near.at_hand(("v", "u")) is None
    assert await near.look(("v", "u")) == [("other", "other")]
    assert near.at_hand(("v", "u")) == "other"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("first", [None, VideoText(title="a")])
async def test_what_was_made_of_another_text_is_not_at_hand(
    near: Near,
    query_cache: QueryCache,
    small_store: FeatureStore,
    shared: bool,
    first: VideoText | None,
) -> None:
    """Also where there was no text at all, and so no seal that could have been kept."""
    if first is not None:
        await small_store.apply([(VideoPut("v", 1.0, "e1", first), None)])
    [features] = await small_store.features([("v", "u")])
    await query_cache.put(
        [
            CacheEntry(result("v", "q"), "u", shared, features.seals),
            CacheEntry(result("v", "q"), seals=features.seals),
        ]
    )
    await near.look(("v", "u"), ("v", None))
    assert [near.at_hand(pair) for pair in (("v", "u"), ("v", None))] == ["q", "q"]
    await small_store.apply([(VideoPut("v", 2.0, "e2", VideoText(sensitive=True)), None)])
    await near.cache.settle()
    assert [near.at_hand(pair) for pair in (("v", "u"), ("v", None))] == [None, None]
    assert await near.look(("v", "u"), ("v", None)) == [(None, None), (None, None)]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_deleted_user_is_served_nothing_from_here(
    near: Near, query_cache: QueryCache, small_store: FeatureStore, shared: bool
) -> None:
    await query_cache.put([CacheEntry(result("v", "q"), "u", shared), CacheEntry(result("v", "q"))])
    await near.look(("v", "u"))
    assert near.at_hand(("v", "u")) == "q"
    await small_store.delete_user("u", NOW)
    await near.cache.settle()
    assert near.at_hand(("v", "u")) is None
    assert await near.look(("v", "u")) == [(None, "q")]
    await query_cache.put([CacheEntry(result("v", "old"), "u")])  # read just before, put just after
    assert await near.look(("v", "u")) == [(None, "q")]
    assert near.at_hand(("v", "u")) is None


async def test_nothing_outlives_the_hard_ttl(near: Near, query_cache: QueryCache) -> None:
    await query_cache.put(
        [
            CacheEntry(result("v", "all")),
            CacheEntry(result("v", "mine"), "u"),
            CacheEntry(result("v", "all", at=NOW - 10), "w", shared=True),
        ]
    )
    await near.look(("v", "u"), ("v", "w"))
    last = NOW + HARD_S - 0.001
    assert [near.at_hand(("v", user), last) for user in (None, "u", "w")] == ["all", "mine", None]
    assert [near.at_hand(("v", user), NOW + HARD_S) for user in (None, "u", "w")] == [None] * 3
    assert near.at_hand(("v", "w"), NOW + HARD_S - 10.001) == "all"


@pytest.mark.parametrize("how", ["killed", "unlinked"])
async def test_a_loss_empties_it(
    near: Near, query_cache: QueryCache, small_store: FeatureStore, how: str
) -> None:
    await query_cache.put([CacheEntry(result("v", "mine"), "u")])
    await near.look(("v", "u"))
    if how == "killed":
        number = await near.client.shared.call([("CLIENT", "ID")])
        await small_store.client.execute_command("CLIENT", "KILL", "ID", number[0])
        async with asyncio.timeout(TIMEOUT_S):
            while len(near.cache):  # noqa: ASYNC110 - the server makes it true
                await asyncio.sleep(0.001)
    else:
        for name in small_store.keys.answering([("v", "u")]):
            await small_store.client.unlink(name)
        await near.cache.settle()
    assert near.at_hand(("v", "u")) is None
    assert await near.look(("v", "u")) == [("mine" if how == "killed" else None, None)]
    if how == "killed":
        assert near.at_hand(("v", "u")) == "mine"


async def test_a_damaged_value_is_a_miss(
    near: Near, query_cache: QueryCache, small_store: FeatureStore
) -> None:
    await query_cache.put([CacheEntry(result("v", "q"), "u"), CacheEntry(result("v", "q"))])
    await small_store.client.set(small_store.keys.cached_for("v", "u"), "OBQ=")
    mark = await small_store.client.get(small_store.keys.cached("v"))
    await small_store.client.set(small_store.keys.cached("v"), b"OBQ=" + mark[4:])
    assert await near.cache.lookup([("v", "u"), ("v", None)]) == [Lookup(), Lookup()]
    assert near.cache.at_hand([("v", "u"), ("v", None)], NOW) == [None, None]


async def test_it_finds_what_the_cache_finds(
    near: Near, query_cache: QueryCache, small_store: FeatureStore
) -> None:
    """Whatever is put, replaced, marked or deleted, in whatever order, while it is being read."""
    chance = random.Random(7)
    videos, users = ["v", "w}:q:u", "ü :"], ["u", "x y", "%41", None]
    pairs: list[Pair] = [(video, user) for video in videos for user in users]
    for step in range(300):
        video, user = chance.choice(pairs)
        at = NOW + chance.randint(-int(HARD_S) - 100, 100)
        fresh = result(video, f"q{step}", f"d{step}", at)
        shared = user is not None and chance.random() < 0.3
        writes = [query_cache.put([CacheEntry(fresh, user, shared)])]
        if user is not None and chance.random() < 0.1:
            writes.append(small_store.delete_user(user, 1.0))
        asked = chance.sample(pairs, 4)
        await asyncio.gather(near.cache.lookup(asked), *writes, near.cache.lookup(asked))
        await near.cache.settle()
        expected = await query_cache.lookup(pairs)
        bodies = near.cache.at_hand(pairs, NOW)
        for pair, found, body in zip(pairs, expected, bodies, strict=True):
            assert body is None or body == (found.video if pair[1] is None else found.personal)
        assert await near.cache.lookup(asked) == [expected[pairs.index(pair)] for pair in asked]
    assert any(near.at_hand(pair) for pair in pairs)


async def test_lookups_in_their_thousands_ask_once(near: Near, query_cache: QueryCache) -> None:
    pairs: list[Pair] = [(f"v{n}", "u") for n in range(200)]
    await query_cache.put([CacheEntry(result(video, video, video), "u") for video, _ in pairs])
    await near.cache.lookup(pairs)
    for _ in range(10):
        assert [first(body) for body in near.cache.at_hand(pairs, NOW)] == [v for v, _ in pairs]
    assert near.asked == 1


async def test_a_body_keeps_its_bytes(near: Near, query_cache: QueryCache) -> None:
    given = result("v", 'a "quoted" 查询')
    await query_cache.put([CacheEntry(given, "u")])
    await near.cache.lookup([("v", "u")])
    [body] = near.cache.at_hand([("v", "u")], NOW)
    assert body is not None
    assert body.body + b"}" == msgspec.json.encode(given)


async def test_it_rests_where_nothing_is_asked_for_twice(
    redis_url: str, query_cache: QueryCache
) -> None:
    pairs: list[Pair] = [(f"v{n}", "u") for n in range(100)]
    await query_cache.put([CacheEntry(result(video, video, video), "u") for video, _ in pairs])
    near = Near(redis_url, query_cache, limit_bytes=10_000)

    async def ask(*each: Pair) -> None:
        for pair in each:
            if near.at_hand(pair) is None:
                assert await near.look(pair) == [(pair[0], None)]

    await ask(*pairs[:60])
    assert near.asked < 60
    assert len(near.cache) == 0
    asked = near.asked
    await ask(pairs[0], pairs[0])
    assert near.at_hand(pairs[0]) is None
    assert near.asked == asked
    for _ in range(10):  # until the rest is over
        await ask(*pairs)
    assert near.asked > asked
    await near.cache.close()


async def test_in_resp2_nothing_is_kept(redis_url: str, query_cache: QueryCache) -> None:
    """There Redis agrees to track, and never tells."""
    near = Near(f"{redis_url}?protocol=2", query_cache)
    await query_cache.put([CacheEntry(result("v", "mine"), "u")])
    assert await near.look(("v", "u")) == [("mine", None)]
    assert near.at_hand(("v", "u")) is None
    assert len(near.cache) == 0
    await near.cache.close()


async def test_long_ids_count_as_what_they_take(redis_url: str, query_cache: QueryCache) -> None:
    pairs: list[Pair] = [("\N{ROCKET}" * 200 + str(n), "u") for n in range(200)]
    await query_cache.put([CacheEntry(result(video, "q", video), "u") for video, _ in pairs])
    near = Near(redis_url, query_cache, limit_bytes=200_000)
    for pair in pairs:
        await near.look(pair)
    assert len(near.cache) < 120  # a body names its video too: 1,600 bytes a pair in all
    await near.cache.close()


async def test_one_body_is_at_hand_for_all_whose_own_it_is(
    near: Near, query_cache: QueryCache
) -> None:
    pairs: list[Pair] = [("v", f"u{n}") for n in range(600)]
    await query_cache.put([CacheEntry(result("v", "all"))])
    await query_cache.put([CacheEntry(result("v", "all"), user, shared=True) for _, user in pairs])
    for at in range(0, len(pairs), 100):
        await near.cache.lookup(pairs[at : at + 100])
    bodies = near.cache.at_hand(pairs, NOW)
    assert sum(body is not None for body in bodies) == len(pairs)
