"""A user is forgotten everywhere that docs/content-safety.md names: each line of its table is
walked here, and one that is added there fails until it is."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from api_fixtures import Running, running
from store_fixtures import keys_of
from support import eventually

from feature_store.cache.query_cache import QueryCache
from feature_store.opening import versions_beside
from feature_store.redis.client import Client
from feature_store.store import FeatureStore
from feature_store.versions import Journal, Version
from onebar.evidence.text import clean_video
from onebar.policy import DAY, StatePolicy
from onebar.records import CacheEntry
from onebar.settings import Settings
from stream.archive.forget import forget
from stream.archive.reader import open_archive
from stream.archive.writer import archive_log
from stream.dataset.build import build_dataset
from stream.dataset.config import DatasetConfig
from stream.dataset.tables import COLUMNS
from stream.events import (
    BEHAVIORS,
    DEAD_LETTERS,
    IMPRESSIONS,
    QUERIES,
    Click,
    Deletion,
    Event,
    Impression,
    Search,
    Video,
    encode,
)
from stream.events.fold import fold
from stream.kafka.topics import TOPICS
from stream.logs.files import EventLog

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "content-safety.md"
USER = "anna-1988"
WORDS = "clinic near 12 example street anna e"


def rows() -> list[str]:
    """What the page says stays somewhere."""
    table = PAGE.read_text(encoding="utf-8").partition("## Forgetting")[2]
    cells = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return [cell for cell in cells[2:] if cell]


def log_of(now: float) -> list[Event]:
    def seen(user: str, n: int, query: str) -> list[Event]:
        pair = {"video_id": "v", "user_id": user}
        ts = now - 500 + n
        return [
            Impression(event_id=f"i{user}", ts=ts, **pair),
            Search(event_id=f"s{user}", ts=ts + 0.1, query=query, **pair),
            Click(event_id=f"c{user}", ts=ts + 0.2, query=query, **pair),
        ]

    return [
        Video(event_id="v", ts=now - 1000, video_id="v", title="birthday cake clinic"),
        *(event for n in range(20) for event in seen(f"u{n}", n, "birthday cake")),
        *seen(USER, 7, WORDS),
    ]


async def answer(api: Running, user: str | None) -> list[str]:
    wanted = {"video_id": "v", "budget_ms": "2000"} | ({} if user is None else {"user_id": user})
    found = (await api.http.get("/v1/queries", params=wanted)).json()
    return [query["text"] for query in found["queries"]]


def retention(topic: str) -> float:
    [spec] = [spec for spec in TOPICS if spec.name == topic]
    return int(spec.config["retention.ms"]) / 1000


async def test_every_place_that_the_page_names(
    settings: Settings,
    store: FeatureStore,
    cache: QueryCache,
    client: Client,
    made_topics: None,
    tmp_path: Path,
) -> None:
    settings = settings.model_copy(update={"showable_users": 3})
    policy, now = StatePolicy(), time.time()
    events = log_of(now)
    for event in events:
        await store.apply([(write, None) for write in fold(event, clean_video)])
        await store.of("g0").apply([(write, None) for write in fold(event, clean_video)])
    kept = Journal(versions={"g0": Version(filled=True)})  # the one that was live before
    await versions_beside(store, settings).write(kept)
    [before] = await store.features([("v", USER)])
    ahead = Search(event_id="ahead", ts=now + 30, user_id=USER, query="stamped ahead")
    await store.apply([(write, None) for write in fold(ahead, clean_video)])
    walked: dict[str, bool] = {}
    async with running(settings) as api:

        async def own() -> bool:
            return any(WORDS[:6] in text for text in await answer(api, USER))

        await eventually(own, what="a bar of the user's own words")
        await answer(api, USER)
        [mine] = await cache.lookup([("v", USER)])
        assert mine.personal is not None
        slept = CacheEntry(mine.personal.result(), USER, seals=before.seals)

        response = await api.http.delete(f"/v1/users/{USER}")
        assert response.status_code == 204
        events.append(Deletion(event_id="d", ts=now, user_id=USER))

        walked["history"] = await store.history(USER) == ()
        other = store.of("g0")
        walked["history in other versions of the state"] = (
            await other.history(USER) == () and await other.history("u1") != ()
        )
        assert await cache.put([slept]) == [False]  # a worker that slept through it
        [found] = await cache.lookup([("v", USER)])
        walked["own cached bars"] = found.personal is None
        assert not any(WORDS in text for text in await answer(api, USER))
        [deletion] = [name for name in await keys_of(client, store.keys) if name.endswith("}:d")]
        walked["the id and the time of the deletion"] = (
            400 * DAY - 60 < await client.ttl(deletion) <= 400 * DAY
        )
        await store.apply([(write, None) for write in fold(ahead, clean_video)])
        assert await store.history(USER) == ()

        values = await client.hgetall(store.keys.anchors("v"))
        named = [field + value for field, value in values.items() if USER.encode() in field + value]
        walked["who asked a query"] = named == []
        await api.http.get("/v1/queries", params={"video_id": "v", "budget_ms": "0"})
        shown = (await api.http.get("/v1/videos/v/anchors")).json()["anchors"]
        everybody = [*await answer(api, None), *await answer(api, "u1")]
        walked["words that they alone asked"] = [a["query"] for a in shown] == ["birthday cake"]
        assert not any("street" in text for text in everybody)
        ttl = await client.ttl(store.keys.anchors("v"))
        walked["counts and weights they added to"] = 0 < ttl <= policy.video_ttl_s
        digests = [name for name in await keys_of(client, store.keys) if "{d:" in name]
        walked["queries made of one prompt"] = bool(digests) and all(
            [0 < await client.ttl(name) <= settings.cache_hard_ttl_s for name in digests]
        )

    walked["behaviours"] = retention(BEHAVIORS) == 90 * DAY
    walked["impressions"] = retention(IMPRESSIONS) == DAY
    walked["generated queries"] = retention(QUERIES) == DAY
    walked["dead letters"] = retention(DEAD_LETTERS) == 30 * DAY

    log = tmp_path / "log.jsonl"
    log.write_bytes(
        b"".join(encode(event) + b"\n" for event in events) + b'{"user_id":"anna-1988"\n'
    )
    archive_log(EventLog(log), tmp_path / "archive")
    opened = open_archive(tmp_path / "archive")
    files = {name: opened.table_glob(name) for name in COLUMNS}
    config = DatasetConfig(policy=settings.policy, valid=0.0, test=0.0)
    dataset = build_dataset(files, tmp_path / "dataset", config)
    triggers = list(dataset.read("train"))
    walked["datasets"] = {t.user_id for t in triggers} == {f"u{n}" for n in range(20)}
    assert not any("street" in text for text in dataset.texts())

    assert forget(tmp_path / "archive", USER) == 4  # and the broken line
    assert forget(tmp_path / "archive", USER) == 0
    again = open_archive(tmp_path / "archive")
    again.check()
    walked["archive"] = again.card.counts["search"] == 20 and again.card.counts["deletion"] == 1
    assert again.card.positions == opened.card.positions

    elsewhere = {"checkpoints", "logs of the processes"}  # what nobody but the operator can do
    assert [row for row in rows() if row not in walked and row not in elsewhere] == []
    assert {row: walked[row] for row in rows() if row not in elsewhere} == dict.fromkeys(
        [row for row in rows() if row not in elsewhere], True
    )


async def test_only_an_administrator_takes_away_by_an_event(settings: Settings) -> None:
    import hashlib

    keys = tuple(
        f"{scopes}:{hashlib.sha256(key).hexdigest()}"
        for scopes, key in (("write", b"writer"), ("write+admin", b"admin"))
    )
    common = {"event_id": "e", "ts": time.time()}
    async with running(settings.model_copy(update={"api_keys": keys})) as api:

        async def send(key: str, event: dict[str, object]) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return await api.http.post("/v1/events", json=[event], headers=headers)

        for event in (
            {**common, "type": "deletion", "user_id": "u"},
            {**common, "type": "removal", "video_id": "v"},
            {**common, "type": "rule", "rule_id": "r", "action": "block", "query": "q"},
        ):
            assert (await send("writer", event)).status_code == 403
            assert (await send("admin", event)).status_code in (202, 503)
        search = {**common, "type": "search", "user_id": "u", "query": "q"}
        assert (await send("writer", search)).status_code in (202, 503)


@pytest.mark.parametrize("path", ["x/history", "x/y"])
async def test_what_is_behind_a_user_is_not_another_user(settings: Settings, path: str) -> None:
    async with running(settings) as api:
        assert (await api.http.delete(f"/v1/users/{path}")).status_code == 404
