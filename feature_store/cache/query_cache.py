"""The query cache: ready-to-send bodies by (video, user), by video, and by prompt digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from msgspec import structs

from feature_store.cache.codec import (
    CachedBody,
    Lookup,
    decode_answering,
    decode_body,
    encode_body,
    encode_mark,
)
from feature_store.keys import Keys
from feature_store.plan import SCORE_SCALE
from feature_store.redis.client import Client, Command, pipelined, strings
from onebar.records import CacheEntry, Pair, QueryResult

RECENT_VIDEOS = 200
"""Videos remembered as those that queries were generated for last."""


class QueryCache:
    """Cached results of one version of the state. One round trip a call.

    Every method raises `StoreUnavailableError` or `StoreCommandError`. A value that is none of
    ours, or damaged, is a miss.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        soft_ttl_s: float,
        hard_ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.keys = keys
        self.soft_ttl_s = soft_ttl_s
        self.hard_ttl_s = hard_ttl_s
        self.clock = clock

    async def lookup(self, pairs: Sequence[Pair]) -> list[Lookup]:
        """What is cached for each (video, user), in their order."""
        values = await strings(self.client, self.keys.answering(pairs))
        return [found for _, found, _ in decode_answering(pairs, values, self.soft_ttl_s)]

    async def by_digest(self, digests: Sequence[str]) -> list[CachedBody | None]:
        """What one prompt gave, whoever it was for: the `video_id` in it is empty."""
        names = [self.keys.digest(digest) for digest in digests]
        values = await strings(self.client, names)
        return [decode_body(value, self.soft_ttl_s) for value in values]

    async def put(self, entries: Sequence[CacheEntry]) -> None:
        """Keep the results for the hard TTL, and each under its digest as well.

        Raises `ValueError` for a shared entry that names no user.
        """
        now = self.clock()
        ttl = max(1, round(self.hard_ttl_s * 1000))
        commands: list[Command] = []
        digests: dict[str, QueryResult] = {}
        for entry in entries:
            result = entry.result
            value = encode_body(result)
            name = self.keys.cached(result.video_id)
            if entry.user_id is not None:
                commands += self._index(result.video_id, entry.user_id, now, ttl)
                name = self.keys.cached_for(result.video_id, entry.user_id)
                if entry.shared:
                    value = encode_mark(result.generated_at)
            elif entry.shared:
                raise ValueError("expected a user_id in a shared cache entry, got None")
            commands.append(Command("SET", (name,), (value, "PX", ttl)))
            digests[result.evidence_digest] = structs.replace(result, video_id="")
        for digest, result in digests.items():
            name = self.keys.digest(digest)
            commands.append(Command("SET", (name,), (encode_body(result), "PX", ttl)))
        commands += self._recent({entry.result.video_id for entry in entries}, now, ttl)
        await pipelined(self.client, commands)

    def _index(self, video_id: str, user_id: str, now: float, ttl: int) -> list[Command]:
        """Note that a user has a cached body, so that a deletion finds it."""
        index = self.keys.personal_videos(user_id)
        return [
            Command("ZADD", (index,), (repr(now + self.hard_ttl_s), video_id)),
            Command("ZREMRANGEBYSCORE", (index,), ("-inf", repr(now))),
            Command("PEXPIRE", (index,), (ttl,)),
        ]

    def _recent(self, video_ids: Collection[str], now: float, ttl: int) -> list[Command]:
        """Note which videos queries were generated for last: three commands a call."""
        if not video_ids:
            return []
        name = self.keys.recent
        scored = [
            word for video_id in sorted(video_ids) for word in (round(now * SCORE_SCALE), video_id)
        ]
        return [
            Command("ZADD", (name,), tuple(scored)),
            Command("ZREMRANGEBYRANK", (name,), (0, -RECENT_VIDEOS - 1)),
            Command("PEXPIRE", (name,), (ttl,)),
        ]
