"""The query cache: ready-to-send bodies by (video, user), by video, and by prompt digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from heapq import nlargest
from operator import itemgetter

from msgspec import structs

from feature_store.cache.codec import (
    HEADER_BYTES,
    CachedBody,
    Lookup,
    decode_answering,
    decode_body,
    encode_body,
    encode_mark,
    read_at_of,
)
from feature_store.keys import Keys
from feature_store.plan import SCORE_SCALE, decode_scored, scored_words, seal_of
from feature_store.redis.client import Client, Command, load_script, pipelined, scan, strings
from onebar.records import NO_SEAL, CacheEntry, Pair, QueryResult

CACHED = load_script("cached")
KEPT_AT_ONCE = 1000
"""Keys looked at in one round trip."""
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

    def bind(self, keys: Keys) -> None:
        """Of another version of the state from the next call on."""
        self.keys = keys

    async def lookup(self, pairs: Sequence[Pair]) -> list[Lookup]:
        """What is cached for each (video, user), in their order, without what is void."""
        values = await strings(self.client, self.keys.answering(pairs))
        return [found.lookup for found in decode_answering(pairs, values, self.soft_ttl_s)]

    async def by_digest(self, digests: Sequence[str]) -> list[CachedBody | None]:
        """What one prompt gave, whoever it was for: the `video_id` in it is empty."""
        names = [self.keys.digest(digest) for digest in digests]
        values = await strings(self.client, names)
        return [decode_body(value, self.soft_ttl_s) for value in values]

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        """Keep the results for the hard TTL, and what each was made from under its digest as well.
        Whether each may be served: not so where the video's text changed since its evidence was
        read, or the user was forgotten.

        Where a result that was made of newer evidence is kept already, that stays. Raises
        `ValueError` for a shared entry that names no user.
        """
        now = self.clock()
        ttl = max(1, round(self.hard_ttl_s * 1000))
        bodies: list[Command] = []
        deletions: list[Command] = []
        others: list[Command] = []
        digests: dict[str, QueryResult] = {}
        for entry in entries:
            result, seals = entry.result, entry.seals
            value = encode_body(result, seals, entry.passed)
            name = self.keys.cached(result.video_id)
            if entry.user_id is not None:
                if entry.kept:
                    others += self._index(result.video_id, entry.user_id, now, ttl)
                deletions.append(Command("GET", (self.keys.deletion(entry.user_id),)))
                name = self.keys.cached_for(result.video_id, entry.user_id)
                if entry.shared:
                    value = encode_mark(result.generated_at, seals)
            elif entry.shared:
                raise ValueError("expected a user_id in a shared cache entry, got None")
            seal = self.keys.seal(result.video_id)
            bodies.append(
                Command(CACHED, (name, seal), (value, ttl))
                if entry.kept
                else Command("GET", (seal,))
            )
            made = entry.made or result
            digests[made.evidence_digest] = structs.replace(made, video_id="")
        for digest, made in digests.items():
            name = self.keys.digest(digest)
            others.append(Command("SET", (name,), (encode_body(made), "PX", ttl)))
        kept = {entry.result.video_id for entry in entries if entry.kept}
        others += self._recent(kept, now, ttl)
        # What is put for a user who is forgotten meanwhile is void by its seal, or told of here.
        replies = await pipelined(self.client, [*bodies, *others, *deletions])
        deleted = iter(replies[len(bodies) + len(others) :])
        current = []
        for entry, seal in zip(entries, replies, strict=False):
            user_seal = NO_SEAL if entry.user_id is None else seal_of(next(deleted))
            known = entry.user_id is None or user_seal == entry.seals.user
            current.append(known and seal in (None, entry.seals.video))
        return current

    async def kept(self, most: int) -> list[tuple[Pair, float]]:
        """The (video, user)s whose queries are kept, and when what they stand on was read, the
        newest first, `most` of them. Looks through all keys, some at a time."""
        newest: list[tuple[float, Pair]] = []
        batch: list[str] = []
        begin, part = self.keys.all_cached

        async def take() -> None:
            commands = [Command("GETRANGE", (name,), (0, HEADER_BYTES - 1)) for name in batch]
            for name, head in zip(batch, await pipelined(self.client, commands), strict=True):
                read_at, pair = read_at_of(head), self.keys.slot(name.encode())
                if read_at is not None and isinstance(pair, tuple):
                    newest.append((read_at, pair))
            batch.clear()
            if len(newest) > 2 * most:
                newest[:] = nlargest(most, newest, key=itemgetter(0))

        async for name in scan(self.client, begin, part=part):
            batch.append(name)
            if len(batch) == KEPT_AT_ONCE:
                await take()
        await take()
        chosen = nlargest(most, newest, key=itemgetter(0))
        return [(pair, read_at) for read_at, pair in chosen]

    async def copy_recent(self, other: QueryCache) -> None:
        """Have the videos that queries were generated for last in another version of the state in
        the place of this one's."""
        everything = (0, -1, "WITHSCORES")
        [found] = await pipelined(
            self.client, [Command("ZRANGE", (other.keys.recent,), everything)]
        )
        await pipelined(self.client, [Command("DEL", (self.keys.recent,))])
        if found:
            words = scored_words(decode_scored(found))
            ttl = max(1, round(self.hard_ttl_s * 1000))
            await pipelined(self.client, [Command("ZADD", (self.keys.recent,), words)])
            await pipelined(self.client, [Command("PEXPIRE", (self.keys.recent,), (ttl,))])

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
