"""Whether Redis holds the fold of a log: wait until the workers are through, and compare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from feature_store.opening import live_settings, open_live_store
from feature_store.redis.client import StoreUnavailableError
from feature_store.snapshot import StateSnapshot, diff
from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS, IMPRESSIONS, RULES, VIDEOS
from stream.kafka.consumer import end_offsets, group_lag
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.topics import partition_counts

POLL_S = 0.2
FOLDED_POLL_S = 0.03


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


class VideosFolded:
    """Waits until the state has taken in every video that is in the log now. Where it does not get
    on for a while, or can't be asked, `on_stalled` is told why, once, and no more is waited for."""

    def __init__(
        self,
        settings: Settings,
        on_stalled: Callable[[str], None] = lambda why: None,
        stalled_s: float = 10.0,
    ) -> None:
        self._settings = settings
        self._on_stalled = on_stalled
        self._stalled_s = stalled_s
        self._stalled = False

    async def __call__(self) -> None:
        """Wait. Raises `KafkaUnavailableError`."""
        if self._stalled:
            return
        try:
            why = await self._wait()
        except StoreUnavailableError as error:
            why = str(error)
        if why:
            self._stalled = True
            self._on_stalled(why)

    async def _wait(self) -> str:
        topic = self._settings.topic_prefix + VIDEOS
        count = (await partition_counts(self._settings)).get(topic, 0)
        ends = await end_offsets(self._settings, [(topic, p) for p in range(count)])
        last = {(VIDEOS, p): end - 1 for (_, p), end in ends.items() if end}
        store = await open_live_store(self._settings)
        try:
            most, moved_at = -1, time.monotonic()
            while True:
                reached = await store.reached(list(last))
                behind = {pair: end - reached.get(pair, -1) for pair, end in last.items()}
                left = sum(max(0, lag) for lag in behind.values())
                if not left:
                    return ""
                done = sum(reached.values())
                if done > most:
                    most, moved_at = done, time.monotonic()
                elif time.monotonic() - moved_at > self._stalled_s:
                    return f"{left:,} videos are not taken in, for {self._stalled_s:g} s none was"
                await asyncio.sleep(FOLDED_POLL_S)
        finally:
            await store.close()


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
