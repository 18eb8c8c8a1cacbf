"""What is answered while something is away: from what was last known, marked, at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from api_fixtures import Running, running
from lines import Line
from support import eventually

from feature_store.cache.query_cache import QueryCache
from feature_store.limits import SharedBuckets
from feature_store.store import FeatureStore
from feature_store.writes import VideoPut
from onebar.gating.gate import Gate
from onebar.records import CacheEntry, Candidate, QueryResult, VideoText
from onebar.settings import Settings

pytestmark = pytest.mark.integration


async def ask(api: Running, **parameters: Any) -> dict[str, Any]:
    response = await api.http.get("/v1/queries", params=parameters)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def metric(api: Running, start: str) -> float:
    text = (await api.http.get("/metrics")).text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(start)
    )


def entry(gate: Gate, video: str, user: str | None, query: str) -> CacheEntry:
    now = time.time()
    result = QueryResult(video, (Candidate(query, -0.5),), False, "m", f"{video:0>32}", now)
    return CacheEntry(result, user, passed=gate.passed(now))


async def test_what_was_last_known_is_answered_while_redis_is_away_and_marked(
    settings: Settings, cache: QueryCache
) -> None:
    async with Line(settings.redis_url) as line:
        made = settings.model_copy(
            update={"redis_url": line.url, "redis_timeout_s": 0.5, "api_generate": False}
        )
        async with running(made, lambda _: None) as api:
            gate = api.services.gate
            await eventually(lambda: gate.open, what="the rules")
            await cache.put(
                [
                    entry(gate, "v", None, "tent"),
                    entry(gate, "v", "u", "boots"),
                    entry(gate, "w", "u", "map"),
                ]
            )
            pairs = [("v", "u"), ("w", "u"), ("v", None)]
            for video, user in pairs:
                named = {"video_id": video} | ({"user_id": user} if user else {})
                assert (await ask(api, **named))["source"] == "cache"
            line.hold()

            async def known() -> bool:
                await ask(api, video_id="never seen")
                answer = await ask(api, video_id="v", user_id="u")
                return api.services.redis.open and answer.get("fallback") == "last_known"

            await eventually(known)
            started = time.monotonic()
            answer = await ask(api, video_id="v", user_id="u", budget_ms=2000)
            assert time.monotonic() - started < 1
            assert answer["source"] == "fallback"
            assert answer["reason"] == "store_unavailable"
            assert [query["text"] for query in answer["queries"]] == ["boots"]
            assert answer["age_s"] >= 0
            assert answer["model"] == "m"
            body = {"requests": [{"video_id": v, "user_id": u or ""} for v, u in pairs]}
            results = (await api.http.post("/v1/queries", json=body)).json()["results"]
            assert [one["fallback"] for one in results] == ["last_known"] * 3
            assert [one["queries"][0]["text"] for one in results] == ["boots", "map", "tent"]
            unknown = await ask(api, video_id="never seen")
            assert (unknown["fallback"], unknown["reason"]) == ("empty", "store_unavailable")
            assert await metric(api, 'onebar_breaker_open{server="redis"}') == 1

            async def red() -> bool:
                return (await api.http.get("/readyz")).status_code == 503

            await eventually(red, what="readiness that follows")

            # A user who is to be forgotten is so here, whether Redis hears of it or not.
            assert (await api.http.delete("/v1/users/u")).status_code in (202, 503)
            answer = await ask(api, video_id="w", user_id="u")
            assert answer["fallback"] == "empty"
            line.release()

            async def cached() -> bool:
                return bool((await ask(api, video_id="v"))["source"] == "cache")

            await eventually(cached)
            assert await metric(api, 'onebar_breaker_open{server="redis"}') == 0


async def test_last_known_ends(settings: Settings, cache: QueryCache) -> None:
    async with Line(settings.redis_url) as line:
        made = settings.model_copy(
            update={
                "redis_url": line.url,
                "redis_timeout_s": 0.3,
                "api_generate": False,
                "last_known_s": 0.2,
            }
        )
        async with running(made, lambda _: None) as api:
            gate = api.services.gate
            await eventually(lambda: gate.open, what="the rules")
            await cache.put([entry(gate, "v", None, "tent")])
            assert (await ask(api, video_id="v"))["source"] == "cache"
            line.hold()

            async def over() -> bool:
                return bool((await ask(api, video_id="v")).get("fallback") == "empty")

            await eventually(over)


async def test_a_batch_of_misses_is_one_recommendation_and_stops_nobody(
    settings: Settings, store: FeatureStore
) -> None:
    """256 videos that nothing was generated for: they are read together, those that the engine
    comes to are answered with what it made, and the event loop is free all the while."""
    videos = [f"v{n}" for n in range(256)]
    await store.apply(
        [(VideoPut(v, 1.0, f"e{v}", VideoText(title=f"tent {v}")), None) for v in videos]
    )
    patient = settings.model_copy(update={"max_budget_ms": 20_000.0})  # a slow machine has time
    async with running(patient) as api:
        reads: list[int] = []
        features = api.services.store.features

        async def counted(pairs: Sequence[Any], **more: Any) -> Any:
            reads.append(len(pairs))
            return await features(pairs, **more)

        api.services.features._many = counted
        await ask(api, video_id="v0")
        reads.clear()
        body = {"requests": [{"video_id": v, "user_id": "u"} for v in videos], "budget_ms": 20_000}
        response = await api.http.post("/v1/queries", json=body, timeout=30)
        results = response.json()["results"]
        assert [one["video_id"] for one in results] == videos
        assert sum(one["source"] == "generated" for one in results) > 128
        assert sum(reads) <= 2 * len(videos)
        assert len(reads) <= 2 * len(videos) / 16


async def test_processes_share_a_rate_limit(settings: Settings) -> None:
    """Two APIs, ten requests a second: twenty-two at once are not twenty."""
    made = settings.model_copy(update={"rate_limit_per_s": 10.0, "api_generate": False})
    async with running(made, lambda _: None) as one, running(made, lambda _: None) as other:

        async def status(api: Running) -> int:
            return (await api.http.get("/v1/queries?video_id=v")).status_code

        started = time.monotonic()
        found = await asyncio.gather(*(status((one, other)[n % 2]) for n in range(22)))
        elapsed = time.monotonic() - started
        assert set(found) <= {200, 429}
        assert 10 <= found.count(200) <= 10 + 10 * elapsed + 1
        response = await one.http.get("/v1/queries?video_id=v")
        if response.status_code == 429:
            assert int(response.headers["Retry-After"]) >= 1


async def test_each_pair_of_a_batch_counts(settings: Settings) -> None:
    made = settings.model_copy(update={"rate_limit_per_s": 20.0, "api_generate": False})
    async with running(made, lambda _: None) as api:
        body = {"requests": [{"video_id": f"v{n}"} for n in range(200)]}
        assert (await api.http.post("/v1/queries", json=body)).status_code == 200
        refused = await api.http.post("/v1/queries", json=body)
        assert refused.status_code == 429
        assert 5 <= int(refused.headers["Retry-After"]) <= 11


async def test_a_shared_bucket_holds_what_it_says(store: FeatureStore) -> None:
    buckets = SharedBuckets(store.client, store.keys, 100.0)
    granted = 0
    started = time.monotonic()
    for _ in range(30):
        some, wait_s = await buckets.take("a", 10)
        granted += some
        assert (wait_s > 0) == (some < 10)
    elapsed = time.monotonic() - started
    assert 100 <= granted <= 100 + 100 * elapsed + 1
    assert (await buckets.take("b", 5))[0] == 5
    await buckets.take("b", 1000, owed=True)
    some, wait_s = await buckets.take("b", 1)
    assert some == 0
    assert 8 < wait_s < 11
