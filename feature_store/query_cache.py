"""The query cache: ready-to-send bodies by (video, user), by video, and by prompt digest."""

from __future__ import annotations

import math
import struct
import time
import zlib
from collections.abc import Callable, Collection, Sequence

import msgspec
from msgspec import Struct, structs

from feature_store.buckets import CorruptStateError
from feature_store.client import Client, Command, pipelined, strings
from feature_store.keys import Keys
from feature_store.plan import SCORE_SCALE, decode_deletion
from feature_store.records import CacheEntry, QueryResult

RECENT_VIDEOS = 200
"""Videos remembered as those that queries were generated for last."""

DELETION_GRACE_S = 60.0
"""A user's own body generated up to this long after a deletion was applied is not served: it may
have been generated from what was read just before."""

_HEADER = struct.Struct(">4sId")
_BODY = b"OBQ1"
_SAME = b"OBQ="
_MODEL = b'"model":"'


class CachedBody(Struct, frozen=True):
    """Cached queries. `body` is the JSON object of a `QueryResult` without its closing brace, so
    that the fields of one answer can be put behind it. Times are UTC epoch seconds; from
    `fresh_until` on it is still good to serve, but due to be generated anew.
    """

    generated_at: float
    fresh_until: float
    body: bytes

    @property
    def model(self) -> str:
        """The name of the model that generated it, found without decoding the body.

        Inside a string of the body every quote is escaped, so no query can forge it.
        """
        start = self.body.rfind(_MODEL) + len(_MODEL)
        return self.body[start : self.body.find(b'"', start)].decode("utf-8", "replace")

    def result(self) -> QueryResult:
        """The result it was made from. Raises `CorruptStateError`."""
        try:
            return msgspec.json.decode(self.body + b"}", type=QueryResult)
        except msgspec.DecodeError as error:
            raise CorruptStateError(f"expected cached queries: {error}") from None


class Lookup(Struct, frozen=True):
    """What is cached for one (video, user). `personal` is this user's own queries, which may be
    the video's; it is None where no user was named.
    """

    personal: CachedBody | None = None
    video: CachedBody | None = None


class QueryCache:
    """Cached results of one generation of state. One round trip a call.

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

    async def lookup(self, pairs: Sequence[tuple[str, str | None]]) -> list[Lookup]:
        """What is cached for each (video, user), in their order."""
        values = await strings(self.client, self.keys.answering(pairs))
        lookups = []
        at = 0
        for _, user_id in pairs:
            shared = values[at]
            video = None if shared is None else self._body(shared)
            if user_id is None:
                lookups.append(Lookup(None, video))
                at += 1
                continue
            value, deletion = values[at + 1], values[at + 2]
            personal = None if value is None else self._personal(value, video, deletion)
            lookups.append(Lookup(personal, video))
            at += 3
        return lookups

    async def by_digest(self, digests: Sequence[str]) -> list[CachedBody | None]:
        """What one prompt gave, whoever it was for: the `video_id` in it is empty."""
        names = [self.keys.digest(digest) for digest in digests]
        values = await strings(self.client, names)
        return [None if value is None else self._body(value) for value in values]

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
            value = _encode(result)
            name = self.keys.cached(result.video_id)
            if entry.user_id is not None:
                commands += self._index(result.video_id, entry.user_id, now, ttl)
                name = self.keys.cached_for(result.video_id, entry.user_id)
                if entry.shared:
                    value = _HEADER.pack(_SAME, 0, result.generated_at)
            elif entry.shared:
                raise ValueError("expected a user_id in a shared cache entry, got None")
            commands.append(Command("SET", (name,), (value, "PX", ttl)))
            digests[result.evidence_digest] = structs.replace(result, video_id="")
        for digest, result in digests.items():
            name = self.keys.digest(digest)
            commands.append(Command("SET", (name,), (_encode(result), "PX", ttl)))
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

    def _personal(
        self, value: bytes, video: CachedBody | None, deletion: bytes | None
    ) -> CachedBody | None:
        """A user's own body, or the video's where `value` is the mark for that."""
        forgotten = -math.inf if deletion is None else _forgotten_until(deletion)
        if not value.startswith(_SAME):
            body = self._body(value)
            return body if body is not None and body.generated_at > forgotten else None
        if video is None or len(value) < _HEADER.size:
            return None
        _, _, generated_at = _HEADER.unpack_from(value)
        if generated_at <= forgotten:
            return None
        fresh_until = min(video.fresh_until, generated_at + self.soft_ttl_s)
        return structs.replace(video, fresh_until=fresh_until)

    def _body(self, value: bytes) -> CachedBody | None:
        if len(value) < _HEADER.size:
            return None
        magic, checksum, generated_at = _HEADER.unpack_from(value)
        body = value[_HEADER.size :]
        if magic != _BODY or zlib.crc32(body) != checksum:
            return None
        return CachedBody(generated_at, generated_at + self.soft_ttl_s, body)


def _forgotten_until(deletion: bytes) -> float:
    """Bodies generated up to then are not for a user with this deletion."""
    try:
        return decode_deletion(deletion)[1] + DELETION_GRACE_S
    except CorruptStateError:
        return math.inf  # someone was deleted, nobody knows when


def _encode(result: QueryResult) -> bytes:
    body = msgspec.json.encode(result)[:-1]
    return _HEADER.pack(_BODY, zlib.crc32(body), result.generated_at) + body
