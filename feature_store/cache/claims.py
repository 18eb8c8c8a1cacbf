"""Whose turn it is to generate something, where several processes miss it at once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from feature_store.cache.codec import CachedBody, decode_body
from feature_store.keys import Keys
from feature_store.redis.client import Client, Command, load_script, pipelined

CLAIM = load_script("claim")


class Claims:
    """One process's claims on digests. Nobody gives one back: it ends by itself after `hold_s`, so
    one of a process that died costs the others no longer than that."""

    def __init__(self, client: Client, keys: Keys, soft_ttl_s: float, hold_s: float) -> None:
        self.hold_s = hold_s
        self._client = client
        self._keys = keys
        self._soft_ttl_s = soft_ttl_s
        self._who = uuid.uuid4().hex
        self._hold_ms = max(1, round(hold_s * 1000))

    def bind(self, keys: Keys) -> None:
        """Of another version of the state from the next call on."""
        self._keys = keys

    async def look(self, digests: Sequence[str]) -> list[CachedBody | bool]:
        """What was generated under each digest, in one round trip; where nothing was, whether it is
        this process's turn to generate it.

        Raises `StoreUnavailableError` or `StoreCommandError`.
        """
        replies = await pipelined(
            self._client,
            [
                Command(
                    CLAIM,
                    (self._keys.digest(digest), self._keys.claim(digest)),
                    (self._who, self._hold_ms),
                )
                for digest in digests
            ],
        )
        # What can't be read is made anew, by everyone.
        return [
            bool(reply) if isinstance(reply, int) else decode_body(reply, self._soft_ttl_s) or True
            for reply in replies
        ]
