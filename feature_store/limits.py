"""Rate limits that all processes share: one token bucket a caller, in Redis."""

from __future__ import annotations

from feature_store.keys import Keys
from feature_store.redis.client import Client, Command, load_script, pipelined

RATE = load_script("rate")
MICROSECONDS = 1_000_000


class SharedBuckets:
    """Buckets of `per_s` tokens a second that hold one second's worth, by the clock of Redis."""

    def __init__(self, client: Client, keys: Keys, per_s: float) -> None:
        self._client = client
        self._keys = keys
        self._each = MICROSECONDS / per_s
        self._burst = max(1.0, per_s)

    def bind(self, keys: Keys) -> None:
        """Keep the buckets beside another version of the state: they are full there."""
        self._keys = keys

    async def take(self, caller: str, wanted: int, *, owed: bool = False) -> tuple[int, float]:
        """The tokens granted, `wanted` at most, and the seconds until there is another where they
        were fewer.
        `owed`: all are taken, and whoever comes next waits until they are there again.

        Raises `StoreUnavailableError` or `StoreCommandError`.
        """
        arguments = (repr(self._each), repr(self._burst), wanted, int(owed))
        [reply] = await pipelined(
            self._client, [Command(RATE, (self._keys.rate(caller),), arguments)]
        )
        granted, wait_us = reply
        return int(granted), int(wait_us) / MICROSECONDS
