"""Removing a run's keys from a Redis that outlives it."""

from __future__ import annotations

from feature_store.redis.client import Command, pipelined, scan
from feature_store.store import FeatureStore

DROP_BATCH = 1000


async def drop_keys(store: FeatureStore) -> None:
    """Remove every key of the store's namespace and version."""
    names = [name async for name in scan(store.client, store.keys.prefix)]
    for start in range(0, len(names), DROP_BATCH):
        batch = names[start : start + DROP_BATCH]
        await pipelined(store.client, [Command("UNLINK", (name,)) for name in batch])
