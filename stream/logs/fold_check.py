"""Whether Redis holds the fold of a log: wait until the workers are through, and compare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from feature_store.opening import live_settings, open_live_store
from feature_store.snapshot import StateSnapshot, diff
from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS, IMPRESSIONS, RULES, VIDEOS
from stream.kafka.consumer import group_lag
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.topics import partition_counts

POLL_S = 0.2


class LagError(OneBarError, TimeoutError):
    """The workers were not through with a topic in time. The text says which, and how far."""


async def lags(settings: Settings, *, generator: bool) -> dict[str, int]:
    """Messages not yet committed, by consumer group. Raises `KafkaUnavailableError`, and what the
    store does."""
    settings = await live_settings(settings)
    counts = await partition_counts(settings)
    wanted: dict[str, tuple[str, ...]] = {stream_group(settings): (VIDEOS, BEHAVIORS, RULES)}
    if generator:
        wanted[generator_group(settings)] = (IMPRESSIONS,)
    found = {}
    for group, topics in wanted.items():
        names = [settings.topic_prefix + topic for topic in topics]
        partitions = [(name, number) for name in names for number in range(counts.get(name, 0))]
        found[group] = await group_lag(settings, group, partitions)
    return found


async def wait_for_zero_lag(
    settings: Settings,
    *,
    generator: bool,
    stalled_s: float = 60.0,
    on_lag: Callable[[int], None] = lambda lag: None,
) -> None:
    """Return once everything in the topics is processed and committed.

    Raises `LagError` where nothing has moved for `stalled_s` seconds.
    """
    least, moved_at = None, time.monotonic()
    while True:
        found = await lags(settings, generator=generator)
        total = sum(found.values())
        on_lag(total)
        if total == 0:
            return
        if least is None or total < least:
            least, moved_at = total, time.monotonic()
        elif time.monotonic() - moved_at > stalled_s:
            waiting = ", ".join(f"{group}: {lag:,}" for group, lag in found.items() if lag)
            raise LagError(
                f"nothing was committed for {stalled_s:g} s; still waiting for {waiting} "
                "messages. Do workers run on this Kafka, with this topic prefix and group?"
            )
        await asyncio.sleep(POLL_S)


async def differences(settings: Settings, expected: StateSnapshot, limit: int = 20) -> list[str]:
    """How the state in Redis differs from `expected`, a line each; empty where it does not."""
    store = await open_live_store(settings)
    try:
        return diff(expected, await store.dump(), limit)
    finally:
        await store.close()
