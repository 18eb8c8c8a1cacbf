"""The repertoire: worked out of the state, told live, and nothing else shown from any source."""

from __future__ import annotations

import time
from typing import Any

import pytest
from api_fixtures import Running, running
from support import eventually

from feature_store.memory import MemoryStore
from feature_store.opening import repertoire_beside
from feature_store.repertoire import Tally
from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd, HistoryPut, VideoPut, Write
from onebar.gating.gate import Gate
from onebar.policy import RepertoirePolicy
from onebar.records import VideoText
from onebar.settings import Settings
from stream.workers.generator import work_out

pytestmark = pytest.mark.integration

WANTED = RepertoirePolicy(exposures=4, click_rate=0.25, size=3)


def shown(video: str, query: str, *, exposures: int, clicks: int, users: int) -> list[BehaviorAdd]:
    """A query shown under a video, and tapped by so many users in turn."""
    now = time.time()
    writes = [
        BehaviorAdd(video, now, f"e {video} {query} {n}", exposures=(query,), kind="exposure")
        for n in range(exposures)
    ]
    writes += [
        BehaviorAdd(
            *(video, now, f"c {video} {query} {n}", ((query, 2000),)),
            clicks=(query,),
            user_id=f"u{n % users}",
            kind="click",
        )
        for n in range(clicks)
    ]
    return writes


def feed() -> list[Write]:
    now = time.time()
    video = VideoPut("v", now, "v", VideoText(title="red trail running shoes for women"))
    return [
        video,
        *shown("a", "red shoes", exposures=3, clicks=3, users=3),
        *shown("b", "red shoes", exposures=9, clicks=0, users=1),
        *shown("a", "trail shoes", exposures=5, clicks=5, users=5),
        *shown("b", "wool socks", exposures=8, clicks=4, users=4),
        *shown("b", "running shoes", exposures=8, clicks=6, users=2),  # too few users
        *shown("a", "women shoes", exposures=30, clicks=3, users=3),  # too few clicks
        *shown("c", "hats", exposures=2, clicks=3, users=3),  # too few exposures
        *shown("c", "call 0171 555 0199", exposures=9, clicks=9, users=9),
    ]


async def put(store: FeatureStore, *writes: Write) -> None:
    await store.apply([(write, None) for write in writes])


async def test_it_is_what_a_clean_fold_gives_and_changes_by_what_changed(
    settings: Settings, store: FeatureStore
) -> None:
    policy = {f"repertoire_{name}": getattr(WANTED, name) for name in WANTED.__struct_fields__}
    settings = settings.model_copy(update={"showable_users": 3, **policy})
    store.policy = settings.policy
    reference, writes = MemoryStore(settings.policy), feed()
    for write in writes:
        reference.apply(write, None)
    await put(store, *writes)
    shelf, gate = repertoire_beside(store), Gate()

    def may(query: str) -> bool:
        return gate.personal(query) is None

    now = time.time()
    tally = Tally(settings.policy, WANTED, now)
    videos = reference.snapshot().videos.values()
    for video in videos:
        tally.meet(video)
    for video in videos:
        tally.add(video)
    expected = ["trail shoes", "wool socks", "red shoes"]
    assert tally.queries(may) == expected
    assert await shelf.work_out(WANTED, may, now) == expected
    assert await shelf.version() == (0, 0)
    assert await work_out(shelf, gate, settings) == 3
    assert await shelf.version() == (1, 0)
    assert await work_out(shelf, gate, settings) == 3
    assert await shelf.version() == (1, 0)  # as it was
    await put(store, *shown("b", "red shoes", exposures=40, clicks=0, users=1)[9:])
    await work_out(shelf, gate, settings)
    assert await shelf.version() == (2, 2)
    assert await shelf.since(1) == ([], ["red shoes"])
    assert sorted((await shelf.since(0) or [[]])[0]) == ["trail shoes", "wool socks"]
    assert [await shelf.due(60.0) for _ in range(2)] == [True, False]


async def ask(api: Running, **wanted: Any) -> dict[str, Any]:
    response = await api.http.get(
        "/v1/queries", params={"video_id": "v", "budget_ms": 2000, **wanted}
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def texts(answer: dict[str, Any]) -> list[str]:
    return [query["text"] for query in answer["queries"]]


async def every_source(api: Running, **wanted: Any) -> dict[str, set[str]]:
    """What is shown, by where it came from: nothing of a cache, then what was cached."""
    found: dict[str, set[str]] = {}
    for budget_ms in (0, 2000, 2000, 0):
        for user in ({}, {"user_id": "runner"}, {"user_id": f"n{budget_ms}"}):
            answer = await ask(api, **{**wanted, **user, "budget_ms": budget_ms})
            found.setdefault(answer["source"], set()).update(texts(answer))
    batch = {"requests": [{"video_id": "v"}, {"video_id": "v", "user_id": "runner"}], **wanted}
    response = await api.http.post("/v1/queries", json={**batch, "budget_ms": 2000})
    for answer in response.json()["results"]:
        found.setdefault("batch", set()).update(texts(answer))
    return found


SAID = "red trail running sh one"
"""What the engine says first of the video's text."""
MAY_BE = {SAID, "wool socks", "waterproof shoes"}


async def known(store: FeatureStore) -> None:
    """A video with an anchor of its own, a user with a history, and a repertoire."""
    own = [
        BehaviorAdd("v", time.time(), f"s{n}", (("waterproof shoes", 1000),), user_id=f"s{n}")
        for n in range(3)
    ]
    history = HistoryPut("runner", "red running shoes size 8", time.time())
    await put(store, *feed(), *own, history)
    await repertoire_beside(store).put([SAID, "wool socks"])


async def test_a_request_is_answered_of_the_repertoire_alone_and_others_as_before(
    settings: Settings, store: FeatureStore
) -> None:
    await known(store)
    async with running(settings) as api:
        for _ in range(2):  # the second time out of what is cached for all
            found = await every_source(api, constrain="only")
            assert set().union(*found.values()) <= MAY_BE
            assert {SAID, "waterproof shoes"} <= found["batch"]
            preferred = texts(await ask(api, constrain="prefer"))
            assert set(preferred[:2]) == {SAID, "waterproof shoes"}
            assert len(preferred) > 2
            assert set().union(*(await every_source(api)).values()) - MAY_BE


async def test_nothing_else_is_shown_from_any_source_and_changes_hold_live(
    settings: Settings, store: FeatureStore, made_topics: None
) -> None:
    await known(store)
    async with running(settings.model_copy(update={"constrain": "only"})) as api:
        found = await every_source(api, constrain="open")
        assert {"cache", "generated", "fallback", "batch"} <= found.keys()
        assert set().union(*found.values()) <= MAY_BE
        assert {SAID, "waterproof shoes"} <= found["cache"]
        page = (await api.http.get("/v1/feed")).json()["videos"]
        assert {query["text"] for video in page for query in video["answer"]["queries"]} <= MAY_BE

        await repertoire_beside(store).put(["wool socks"])

        async def gone() -> bool:
            return SAID not in set().union(*(await every_source(api)).values())

        await eventually(gone, what="what left the repertoire to leave every bar")
        pin = {"action": "pin", "query": "winter sale", "video_id": "v"}
        assert (await api.http.put("/v1/rules/p", json=pin)).status_code == 200
        assert texts(await ask(api))[0] == "winter sale"
        block = {"action": "block", "query": "waterproof shoes"}
        assert (await api.http.put("/v1/rules/b", json=block)).status_code == 200
        assert "waterproof shoes" not in set().union(*(await every_source(api)).values())
