"""The state is built anew while everything runs, by a command that is killed on the way: nobody is
without an answer, nothing is folded twice or lost, and there is a way back."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from conftest import Servers
from stream_fixtures import decisions, folded, lag, make_events, producer
from support import Workers, eventually, onebar

from feature_store.keys import Keys
from feature_store.opening import versions_beside
from feature_store.redis.client import scan
from feature_store.snapshot import diff
from feature_store.store import FeatureStore
from feature_store.versions import Journal, Versions, at_version
from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, IMPRESSIONS, RULES, VIDEOS, Event, Impression, Search
from stream.logs.dead_letters import read_dead_letters
from stream.rebuild import run as running
from stream.rebuild.run import (
    RebuildRefusedError,
    RebuildRunningError,
    Wanted,
    rebuilding,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

VIDEO_COUNT = 12
USERS = 6
PAIRS = [(f"v{v}", f"u{u}") for v in range(VIDEO_COUNT) for u in range(USERS)]


def impressions() -> list[Impression]:
    return [
        Impression(event_id=f"i-{video}-{user}", ts=time.time(), video_id=video, user_id=user)
        for video, user in PAIRS
    ]


async def caught_up(settings: Settings, *, generator: bool = False) -> None:
    async def none_left() -> bool:
        behind = await lag(settings, VIDEOS, BEHAVIORS, RULES)
        return behind == 0 and not (generator and await lag(settings, IMPRESSIONS, generator=True))

    await eventually(none_left, 60, interval=0.1, what="lag of the workers")


async def sources(http: httpx.AsyncClient) -> Counter[str]:
    """Where the answers for all pairs come from."""
    asked = {"requests": [{"video_id": video, "user_id": user} for video, user in PAIRS]}
    answer = await http.post("/v1/queries", json=asked)
    answer.raise_for_status()
    return Counter(each["source"] for each in answer.json()["results"])


@asynccontextmanager
async def asking(http: httpx.AsyncClient) -> AsyncIterator[Counter[str]]:
    """Somebody asks all the time; where the answers came from, or what went wrong."""
    found: Counter[str] = Counter()

    async def ask() -> None:
        while True:
            for video, user in PAIRS:
                try:
                    url = f"/v1/queries?video_id={video}&user_id={user}"
                    found[str((await http.get(url)).json()["source"])] += 1
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    found[repr(error)] += 1
                await asyncio.sleep(0.02)

    task = asyncio.create_task(ask())
    try:
        yield found
    finally:
        await end_tasks(task)


@asynccontextmanager
async def feeding(settings: Settings, events: list[Event]) -> AsyncIterator[None]:
    """Something happens all the time, and is added to the events."""

    async def feed() -> None:
        async with producer(settings) as kafka:
            while True:
                number = len(events)
                now: Event = Search(
                    event_id=f"live{number}",
                    ts=time.time(),
                    video_id=f"v{number % VIDEO_COUNT}",
                    user_id=f"w{number % 50}",
                    query=f"asked now {number % 7}",
                )
                events.append(now)
                await kafka.send([now])
                await asyncio.sleep(0.02)

    task = asyncio.create_task(feed())
    try:
        yield
    finally:
        await end_tasks(task)


def at(store: FeatureStore, name: str) -> FeatureStore:
    return FeatureStore(store.client, Keys(store.keys.namespace, name), store.policy)


async def run(settings: Settings, *arguments: str) -> dict[str, object]:
    done = await asyncio.to_thread(onebar, "rebuild", *arguments, "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


async def partly_filled(versions: Versions, target: FeatureStore) -> None:
    async def some() -> bool:
        _, journal = await versions.look()
        if journal.rebuild is None or journal.rebuild.phase != "fill":
            return False
        reached = await target.reached([(BEHAVIORS, 0), (BEHAVIORS, 1)])
        return any(offset > 100 for offset in reached.values())

    await eventually(some, 60, what="a state that is filled in part")


async def test_a_rebuild_under_load_that_is_killed_on_the_way(
    servers: Servers, settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    settings = settings.model_copy(
        update={"api_port": free_port(), "stream_batch": 100, "cache_soft_ttl_s": 600.0}
    )
    events = [*make_events(2500, videos=VIDEO_COUNT), *decisions(150, videos=VIDEO_COUNT)]
    versions = versions_beside(store, settings)
    new = at(store, "g2")
    url = f"http://127.0.0.1:{settings.api_port}"
    api = workers.start("api", settings=settings)
    workers.start("stream", settings=settings)
    workers.start("generator", settings=settings)
    async with producer(settings) as kafka:
        await kafka.send(events)
        await kafka.send_messages([(BEHAVIORS, b"k", b"no JSON", ())])
        await caught_up(settings)
        await kafka.send(impressions())
    await caught_up(settings, generator=True)
    await workers.ready(api, settings)
    assert len(await read_dead_letters(settings)) == 1
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        rebuilding(settings, store) as here,
    ):
        before = await sources(http)
        async with asking(http) as answers, feeding(settings, events):
            plan = await here.plan(Wanted())
            assert (plan.live, plan.target, plan.whole_log) == ("g1", "g2", True)
            assert plan.records[BEHAVIORS] > 2000
            later = await here.plan(Wanted(since=time.time() + 60))
            assert (later.whole_log, later.records[VIDEOS]) == (False, plan.records[VIDEOS])
            assert servers.embedded or later.records[BEHAVIORS] == 0  # that one finds no times
            with pytest.raises(RebuildRefusedError, match=r"records of onebar\.behaviors"):
                await here.run(Wanted(target="g2", kept=True))
            assert await new.reached([(BEHAVIORS, 0), (BEHAVIORS, 1)]) == {}  # nothing was done

            killed = workers.start("rebuild", "--rate", "500", settings=settings)
            await partly_filled(versions, new)
            workers.kill(killed)
            assert (await versions.look())[0] == "g1"
            with pytest.raises(RebuildRefusedError, match=r"records of onebar\.behaviors"):
                await here.run(Wanted(target="g2", kept=True))

            report = await run(settings)
            assert report["switched"] is True
            assert report["missing"] == []
            assert 0 < int(str(report["events"])) < len(events) + 100
            assert (await versions.look())[0] == "g2"
            after = await sources(http)
        assert after["fallback"] <= before["fallback"]
        assert set(answers) <= {"cache", "generated", "fallback"}, answers

        await caught_up(at_version(settings, "g2"), generator=True)
        expected = folded(events, settings)
        assert diff(expected, await new.dump()) == []
        assert len(await read_dead_letters(settings)) == 1  # it is not set aside again

        with pytest.raises(RebuildRefusedError, match="is live"):
            await here.drop("g2")
        back = await here.run(Wanted(target="g1", kept=True, warm=0))  # it is warm
        assert (back.switched, back.missing) == (True, [])
        assert (await versions.look())[0] == "g1"
        assert diff(expected, await at(store, "g1").dump()) == []
        assert await here.drop("g2") > 0
        assert [0 async for _ in scan(store.client, new.keys.prefix)] == []
        _, journal = await versions.look()
        assert list(journal.versions) == ["g1"]


async def test_a_state_that_was_lost_is_there_again(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = [*make_events(300), *decisions(60)]
    worker = workers.start("stream")
    async with producer(settings) as kafka:
        await kafka.send(events)
    await caught_up(settings)
    names = [name async for name in scan(store.client, store.keys.prefix)]
    await store.client.delete(*names)
    await eventually(lambda: not worker.running, 60, what="the end of the worker")
    async with rebuilding(settings, store) as here:
        report = await here.run(Wanted(warm=0, drop=True))
    assert (report.switched, report.missing) == (True, [])
    assert report.checked.videos == 0  # there was nothing to compare with
    assert report.dropped > 0  # that it was lost was noted there
    again = workers.start("stream")  # what started the one before starts it again
    more = make_events(400)[300:]
    async with producer(settings) as kafka:
        await kafka.send(more)
    await caught_up(at_version(settings, report.target))
    again.check()
    assert diff(folded([*events, *more], settings), await at(store, "g2").dump()) == []


async def test_the_key_changes_only_from_what_it_was_and_one_rebuild_has_the_lease(
    settings: Settings, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = versions_beside(store, settings)
    assert await versions.look() == ("g1", Journal())
    assert not await versions.switch("g7", "g8", Journal())
    assert await versions.switch("g1", "g2", Journal(previous="g1"))
    assert not await versions.switch("g1", "g3", Journal())  # somebody was faster
    assert await versions.look() == ("g2", Journal(previous="g1"))

    assert await versions.take_lease("one") is None
    assert await versions.take_lease("one") is None  # renewed
    assert await versions.take_lease("two") == "one"
    await versions.end_lease("two")
    assert await versions.holder() == "one"
    monkeypatch.setattr(running, "LEASE_S", -1.0)  # not waited for
    async with rebuilding(settings, store) as here:
        with pytest.raises(RebuildRunningError, match="one"):
            await here.run(Wanted(warm=0))
    await versions.end_lease("one")
    assert await versions.holder() is None
