"""What the operations page asks for and does, on real servers: numbers, dead letters, models."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_fixtures import Running, running
from stream_fixtures import producer, values
from test_api_answers import put, searched, video
from test_model_swap import Models

from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd
from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, InvalidEventError
from stream.kafka.records import Record
from stream.workers.dead_letters import dead_letter, set_aside
from stream.workers.metrics import BATCH_EVENTS, WorkerHealth, serve

pytestmark = pytest.mark.integration


async def get(api: Running, path: str, **parameters: Any) -> Any:
    response = await api.http.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


async def post(api: Running, path: str, body: Any = None) -> httpx.Response:
    return await api.http.post(path, json=body)


async def test_dead_letters_are_looked_into_mended_and_dropped(
    settings: Settings, made_topics: None
) -> None:
    bad = [b'{"type":"click"', b"\xff\xfe", b'{"type":"search"}']
    letters = [
        dead_letter(
            Record(BEHAVIORS, 0, at, time.time(), b"k", value), InvalidEventError(f"reason {at}")
        )
        for at, value in enumerate(bad)
    ]
    async with producer(settings) as kafka:
        await set_aside(kafka, letters, WorkerHealth())
    async with running(settings) as api:
        found = await get(api, "/v1/dead-letters")
        assert found["total"] == 3
        by_offset = {letter["offset"]: letter for letter in found["letters"]}
        assert by_offset[0]["value"] == bad[0].decode()
        assert by_offset[1]["value"] == "\\xff\\xfe"
        assert "reason 2" in by_offset[2]["reason"]
        one = await get(api, "/v1/dead-letters", reason="reason 1", limit=1)
        assert [letter["offset"] for letter in one["letters"]] == [1]

        ids = {at: letter["id"] for at, letter in by_offset.items()}
        mended = {"type": "search", "event_id": "e", "ts": 1.0, "user_id": "u", "query": "boots"}
        refused = await post(
            api, "/v1/dead-letters/replay", {"ids": [ids[0]], "value": '{"type":"search"}'}
        )
        assert refused.status_code == 422
        done = await post(
            api, "/v1/dead-letters/replay", {"ids": [ids[0]], "value": json.dumps(mended)}
        )
        assert done.json() == {"done": 1, "refused": []}
        done = await post(api, "/v1/dead-letters/replay", {"ids": [ids[2]]})
        assert done.json() == {"done": 1, "refused": []}
        done = await post(api, "/v1/dead-letters/drop", {"ids": [ids[1]]})
        assert done.json() == {"done": 1, "refused": []}
        assert (await get(api, "/v1/dead-letters"))["total"] == 0
        assert sorted(await values(settings, BEHAVIORS)) == sorted(
            [json.dumps(mended).encode(), bad[2]]
        )
        unknown = await post(api, "/v1/dead-letters/replay", {"ids": ["9:9"], "value": "{}"})
        assert unknown.status_code == 404
        nothing = await post(api, "/v1/dead-letters/drop", {"ids": []})
        assert nothing.status_code == 422


async def test_models_are_promoted_tried_and_rolled_back(
    settings: Settings, store: FeatureStore, tmp_path: Path
) -> None:
    models = Models(tmp_path)
    await put(store, video("v1", "Waterproof hiking boots"), video("v2", "Matcha latte at home"))
    following = settings.model_copy(update={"registry": models.registry.path})
    async with running(following) as api:
        for each in ("v1", "v2"):
            await get(api, "/v1/queries", video_id=each, budget_ms=2000)
        found = await get(api, "/v1/models")
        assert found["serving"] == "held-00000000"
        assert {each["name"]: each["current"] for each in found["models"]} == {
            models.a: True,
            models.b: False,
        }
        shadow = (await post(api, f"/v1/models/{models.b}/shadow")).json()
        assert shadow["name"] == models.b
        assert shadow["videos"] <= 2
        promoted = (await post(api, f"/v1/models/{models.b}/promote")).json()
        assert [each["name"] for each in promoted["models"] if each["current"]] == [models.b]
        assert models.registry.current() == models.b
        back = (await post(api, "/v1/models/rollback")).json()
        assert [each["name"] for each in back["models"] if each["current"]] == [models.a]
        assert back["history"][0]["action"] == "rollback"
        unknown = await post(api, "/v1/models/nobody-12345678/promote")
        assert unknown.status_code == 409
        assert "nobody-12345678" in unknown.json()["detail"]
        assert models.registry.current() == models.a
    async with running(settings) as api:
        assert (await get(api, "/v1/models"))["models"] == []
        assert (await post(api, "/v1/models/rollback")).status_code == 409


async def test_the_numbers_of_all_parts_and_who_does_not_answer(settings: Settings) -> None:
    port, nobody = free_port(), free_port()
    health = WorkerHealth()
    BATCH_EVENTS.observe(3)
    watched = settings.model_copy(
        update={"metrics_targets": (f"stream=127.0.0.1:{port}", f"gone=127.0.0.1:{nobody}")}
    )
    async with serve("127.0.0.1", port, health), running(watched) as api:

        async def parts() -> dict[str, Any]:
            found = await get(api, "/v1/operations")
            return {part["name"]: part for part in found["parts"]}

        named = await parts()
        assert named["api"]["up"]
        assert (named["stream"]["up"], named["stream"]["fine"]) == (True, False)
        assert "not started" in named["stream"]["problems"]["start"]
        [batches] = named["stream"]["numbers"]["distributions"]["onebar_stream_batch_events"]
        assert batches["count"] >= 1
        assert (named["gone"]["up"], named["gone"]["fine"]) == (False, False)
        assert named["gone"]["problems"]["answer"]
        health.started()
        health.warn("kafka", "two topics have one copy")
        named = await parts()
        assert named["stream"]["fine"]
        assert named["stream"]["warnings"] == {"kafka": "two topics have one copy"}


async def test_click_rates_and_explanations_read_the_state(
    settings: Settings, store: FeatureStore
) -> None:
    shown = [BehaviorAdd("v1", time.time(), f"x{n}", exposures=("hiking boots",)) for n in range(4)]
    clicked = BehaviorAdd("v1", time.time(), "c", clicks=("hiking boots",))
    await put(store, video("v1", "Hiking boots"), *shown, clicked, searched("v1", "boots for snow"))
    async with running(settings) as api:
        await get(api, "/v1/queries", video_id="v1", budget_ms=2000)
        rates = await get(api, "/v1/click-rates")
        assert rates["videos"] == 1
        found = {each["whose"]: each for each in rates["rates"]}
        assert (found["video"]["exposures"], found["video"]["clicks"]) == (4, 1)
        told = await get(api, "/v1/explanation", video_id="v1", user_id="u")
        assert told["explanation"]["anchors"][0]["query"] == "boots for snow"
        served = [query["text"] for query in told["answer"]["queries"]]
        explained = told["explanation"]["candidates"]
        assert [each["text"] for each in explained if each["position"] is not None] == served
        missing = await api.http.get("/v1/explanation", params={"video_id": "nobody"})
        assert missing.status_code == 404
        known = await get(api, "/v1/feed", video_id=["v1", "nobody"])
        assert [each["video_id"] for each in known["videos"]] == ["v1"]
        assert known["videos"][0]["seen_at"] is None


async def test_a_bar_is_watched_over_http(settings: Settings, store: FeatureStore) -> None:
    await put(store, video("v1", "Hiking boots"))
    async with running(settings) as api:
        watched = await api.http.get("/v1/watch", params={"video_id": "v1", "most": 1})
        assert watched.headers["content-type"].startswith("text/event-stream")
        name, data = watched.text.strip().split("\n")
        assert name == "event: bar"
        told = json.loads(data.removeprefix("data: "))
        assert told["state"] == "told"
        answer = await get(api, "/v1/queries", video_id="v1")
        assert told["queries"] == answer["queries"]
        assert api.services.watchers.count == 0
        headed = await api.http.head("/v1/watch", params={"video_id": "v1"})
        assert (headed.status_code, headed.content) == (200, b"")


async def test_all_of_it_needs_the_scope_admin(settings: Settings) -> None:
    import hashlib

    digest = hashlib.sha256(b"reader").hexdigest()
    keyed = settings.model_copy(update={"api_keys": (f"read+write:{digest}",)})
    async with running(keyed) as api:
        headers = {"X-API-Key": "reader"}
        for method, path in [
            ("GET", "/v1/operations"),
            ("GET", "/v1/click-rates"),
            ("GET", "/v1/dead-letters"),
            ("POST", "/v1/dead-letters/replay"),
            ("POST", "/v1/dead-letters/drop"),
            ("GET", "/v1/models"),
            ("POST", "/v1/models/rollback"),
            ("POST", "/v1/models/x/promote"),
            ("POST", "/v1/models/x/shadow"),
        ]:
            assert (await api.http.request(method, path)).status_code == 401, path
            found = await api.http.request(method, path, headers=headers)
            assert found.status_code == 403, path
        page = await api.http.get("/v1/page", headers=headers)
        assert page.status_code == 200
