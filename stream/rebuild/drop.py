"""A version of the state taken out of Redis."""

from __future__ import annotations

from collections.abc import Callable

from feature_store.redis.client import Client, Command, infos, pipelined, scan
from feature_store.store import FeatureStore

AT_ONCE = 500
"""Keys unlinked in one round trip: Redis frees their memory beside its work."""


async def drop(
    store: FeatureStore, told: Callable[[int, int], None] = lambda dropped, keys: None
) -> int:
    """Remove every key of the store's version, some at a time; how many there were. Interrupted, it
    is begun again. `told` is given how many are gone, and how many keys Redis had in all."""
    total = await _keys(store.client)
    dropped = 0
    batch: list[str] = []

    async def unlink() -> None:
        nonlocal dropped
        await pipelined(store.client, [Command("UNLINK", (name,)) for name in batch])
        dropped += len(batch)
        batch.clear()
        told(dropped, total)

    async for name in scan(store.client, store.keys.prefix):
        batch.append(name)
        if len(batch) == AT_ONCE:
            await unlink()
    if batch:
        await unlink()
    return dropped


async def _keys(client: Client) -> int:
    """How many keys there are in all, as far as Redis tells."""
    found = 0
    for info in await infos(client):
        for name, value in info.items():
            if name.startswith("db") and "keys=" in value:
                found += int(value.partition("keys=")[2].partition(",")[0])
    return found
