"""The generator worker as a process, with the shipped checkpoint: impressions become queries."""

from __future__ import annotations

import time

import orjson
import pytest
from lines import Line
from stream_fixtures import lag, producer, values
from support import Workers, eventually

from feature_store.cache.query_cache import QueryCache
from feature_store.store import FeatureStore
from onebar.settings import Settings
from stream.events import BEHAVIORS, IMPRESSIONS, QUERIES, VIDEOS, Click, Event, Impression, Video
from stream.logs.dead_letters import read_dead_letters

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

CAPTIONS = ["waterproof hiking boots for wide feet", "wireless earbuds with long battery life"]


def video(number: int, **fields: object) -> Video:
    caption = CAPTIONS[number % len(CAPTIONS)]
    common = {"event_id": f"v{number}", "ts": time.time(), "video_id": f"v{number}"}
    return Video(**common, **{"caption": caption, **fields})  # type: ignore[arg-type]


def impression(number: int, user: str, video_number: int = 0) -> Impression:
    return Impression(
        event_id=f"i{number}", ts=time.time(), video_id=f"v{video_number}", user_id=user
    )


async def send(settings: Settings, *events: Event) -> None:
    async with producer(settings) as kafka:
        await kafka.send(events)


async def caught_up(settings: Settings) -> None:
    async def none_left() -> bool:
        return (
            await lag(settings, VIDEOS, BEHAVIORS) == 0
            and await lag(settings, IMPRESSIONS, generator=True) == 0
        )

    await eventually(none_left, 60, interval=0.2, what="lag of the workers")


async def known(store: FeatureStore, *video_ids: str) -> None:
    async def all_there() -> bool:
        found = await store.features([(video_id, None) for video_id in video_ids])
        return all(features.text is not None for features in found)

    await eventually(all_there, 60, what="the videos in the store")


async def test_impressions_become_cached_and_published_queries(
    settings: Settings, store: FeatureStore, cache: QueryCache, workers: Workers
) -> None:
    stream, generator = workers.start("stream"), workers.start("generator")
    await send(settings, video(0), video(1, sensitive=True))
    await known(store, "v0", "v1")
    await send(settings, impression(1, "u1"), impression(2, "u2"), impression(3, "u1", 1))
    await caught_up(settings)
    own, other, sensitive, video_level = await cache.lookup(
        [("v0", "u1"), ("v0", "u2"), ("v1", "u1"), ("v0", None)]
    )
    assert own.personal is not None
    assert other.personal is not None
    assert sensitive.personal is not None
    assert video_level.video is not None
    result = own.personal.result()
    assert result.rejected or result.queries
    assert result.queries == other.personal.result().queries == video_level.video.result().queries
    assert sensitive.personal.result().rejected
    published = [orjson.loads(value) for value in await values(settings, QUERIES)]
    pairs = {(message["video_id"], message["user_id"]) for message in published}
    assert pairs == {("v0", "u1"), ("v0", "u2"), ("v1", "u1")}
    [first] = [m for m in published if (m["video_id"], m["user_id"]) == ("v0", "u1")]
    assert first["evidence_digest"] == result.evidence_digest
    assert first["model"] == result.model
    assert workers.stop(generator) == 0, generator.tail()
    assert workers.stop(stream) == 0, stream.tail()


async def test_an_impression_that_overtakes_its_video_is_answered(
    settings: Settings, cache: QueryCache, workers: Workers
) -> None:
    workers.start("generator")
    await send(settings, impression(1, "u1"))
    workers.start("stream")
    await send(settings, video(0))

    async def answered() -> bool:
        # The hold may have run out before the stream worker was up: another impression comes.
        await send(settings, impression(time.time_ns(), "u1"))
        [found] = await cache.lookup([("v0", "u1")])
        return found.personal is not None

    await eventually(answered, 60, interval=0.5)


async def test_killed_generators_lose_no_impression(
    settings: Settings, store: FeatureStore, cache: QueryCache, workers: Workers
) -> None:
    workers.start("stream")
    first = workers.start("generator")
    await send(settings, *(video(i) for i in range(20)))
    await known(store, *(f"v{i}" for i in range(20)))
    users = [(f"v{i % 20}", f"u{i}") for i in range(80)]
    await send(settings, *(impression(i, f"u{i}", i % 20) for i in range(80)))

    async def begun() -> bool:
        return any(found.personal for found in await cache.lookup(users))

    await eventually(begun, 60)
    workers.kill(first)
    workers.start("generator")
    await caught_up(settings)
    missing = [
        pair
        for pair, found in zip(users, await cache.lookup(users), strict=True)
        if found.personal is None
    ]
    assert missing == []


async def test_unknown_late_and_broken_impressions_hold_up_nobody(
    settings: Settings, cache: QueryCache, workers: Workers
) -> None:
    await send(settings, video(0), impression(1, "too-late"))
    hurried = settings.model_copy(update={"late_after_s": 3.0})

    async def old() -> bool:
        return time.time() > sent + 3.5

    sent = time.time()
    await eventually(old)
    workers.start("stream")
    generator = workers.start("generator", settings=hurried)
    async with producer(settings) as kafka:
        await kafka.send_raw(IMPRESSIONS, b"v0", b"\x00 no event")
        await kafka.send_raw(
            IMPRESSIONS, b"v0", b'{"type":"deletion","event_id":"d","ts":1,"user_id":"u"}'
        )
        await kafka.send([impression(2, "u", 77)])

    async def answered() -> bool:
        await send(settings, impression(time.time_ns(), "in-time"))
        [found] = await cache.lookup([("v0", "in-time")])
        return found.personal is not None

    await eventually(answered, 60, interval=0.5)
    await caught_up(settings)
    late, unknown = await cache.lookup([("v0", "too-late"), ("v77", "u")])
    assert late.personal is None
    assert unknown.personal is None
    reasons = [letter.reason for letter in await read_dead_letters(settings)]
    assert len(reasons) == 2
    assert all(reason.startswith("InvalidEventError") for reason in reasons)
    assert workers.stop(generator) == 0, generator.tail()


async def test_a_video_whose_state_is_broken_holds_up_nobody(
    settings: Settings, store: FeatureStore, cache: QueryCache, workers: Workers
) -> None:
    await store.client.lpush(store.keys.anchors("v9"), "no anchors")
    workers.start("stream")
    await send(settings, video(0))
    await known(store, "v0")
    await send(settings, *(impression(i, f"u{i}", 9 if i == 2 else 0) for i in range(5)))
    generator = workers.start("generator")
    await caught_up(settings)
    found = await cache.lookup([("v0", f"u{i}") for i in (0, 1, 3, 4)])
    assert all(lookup.personal for lookup in found)
    [letter] = await read_dead_letters(settings)
    assert letter.reason.startswith("StoreCommandError")
    assert workers.stop(generator) == 0, generator.tail()


async def test_a_checkpoint_that_is_missing_ends_the_worker_with_a_clear_error(
    settings: Settings, workers: Workers
) -> None:
    nowhere = settings.model_copy(update={"checkpoint": "/nonexistent/checkpoint"})
    worker = workers.start("generator", settings=nowhere)
    await eventually(lambda: not worker.running)
    assert worker.process.returncode not in (0, None)
    assert "/nonexistent/checkpoint" in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()


async def test_a_generator_stops_while_redis_stalls_and_its_successor_answers(
    settings: Settings, store: FeatureStore, cache: QueryCache, workers: Workers
) -> None:
    workers.start("stream")
    await send(settings, video(0))
    await known(store, "v0")
    async with Line(settings.redis_url) as line:
        slow = settings.model_copy(update={"redis_url": line.url, "redis_timeout_s": 0.5})
        generator = workers.start("generator", settings=slow)
        await eventually(lambda: "generator_started" in generator.log.read_text())
        line.hold()
        await send(settings, impression(1, "u1"))
        await eventually(lambda: "dependency_away" in generator.log.read_text())
        assert workers.stop(generator) == 0, generator.tail()
        workers.start("generator", settings=slow)
        line.release()
        await caught_up(settings)
    [found] = await cache.lookup([("v0", "u1")])
    assert found.personal is not None


async def test_new_behavior_reaches_the_queries_of_a_fresh_pair(
    settings: Settings, store: FeatureStore, cache: QueryCache, workers: Workers
) -> None:
    workers.start("stream")
    workers.start("generator")
    await send(settings, video(0))
    await known(store, "v0")
    await send(settings, impression(1, "u1"))

    async def digest() -> str:
        [found] = await cache.lookup([("v0", "u1")])
        return "" if found.personal is None else found.personal.result().evidence_digest

    before = await eventually(digest, 60, what="the first queries")
    click = Click(
        event_id="c", ts=time.time(), video_id="v0", user_id="u2", query="gore tex trail shoes"
    )
    await send(settings, click)

    async def anchored() -> bool:
        return bool(await store.anchors("v0"))

    await eventually(anchored, what="the anchor")
    await send(settings, impression(2, "u1"))

    async def renewed() -> bool:
        return await digest() != before

    await eventually(renewed, what="queries from the new evidence")
