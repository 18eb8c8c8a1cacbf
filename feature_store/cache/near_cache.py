"""The query cache, seen from a process that keeps what it read until Redis says it changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog
from msgspec import Struct

from feature_store.cache.admission import Admission
from feature_store.cache.codec import (
    CachedBody,
    Lookup,
    Mark,
    Own,
    decode_answering,
    is_void,
    personal_body,
)
from feature_store.cache.query_cache import QueryCache
from feature_store.cache.tracked import TrackedValues
from feature_store.keys import SEAL, Keys
from feature_store.redis.client import (
    Client,
    Command,
    StoreCommandError,
    close,
    pipelined,
    strings,
)
from feature_store.redis.connection import Watcher
from onebar.records import Pair

log = structlog.get_logger(__name__)


class Connect(Protocol):
    """Gives a client for nothing but a near cache, which tells the watcher."""

    def __call__(self, *, watcher: Watcher) -> Client: ...


ENTRY_BYTES = 200
"""What a kept value takes beside its body and its ids, about: objects, places in dictionaries."""
GROUP_BYTES = 250
"""What it takes more, about, to be found by its user."""
TRIAL_TURNS = 2
"""Turns of what is kept in a trial of whether keeping pays."""


class Seal(Struct, frozen=True, gc=False):
    """A video's seal, kept under its `keys.SEAL`; that it has none is kept too."""

    value: bytes | None


class NearCache:
    """Lookups that go to Redis only for what this process has not read lately.

    Kept are bodies and marks, those of users that were not deleted, with the seals that they stand
    under; never that there is no body, as somebody may be about to put one. A value is served until
    Redis tells of its change, which takes a fraction of a millisecond while the connection is
    sound; a connection that has broken in silence is found out within
    `feature_store.redis.connection.HEARTBEAT_S` and the client's timeout. A server that can't tell
    is asked each time.

    Where hardly any pair is asked for again by the time that the limit is reached, nothing is kept
    for a while (`feature_store.cache.admission`).

    Belongs to one event loop. Raises what `QueryCache` does.
    """

    def __init__(
        self,
        cache: QueryCache,
        connect: Connect,
        *,
        limit_bytes: int,
        last_known_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`last_known_s`: how long after the loss of Redis what was kept can still be had."""
        self._cache = cache
        self._last_known_s = last_known_s
        self._clock = clock
        self._forgotten_at = 0.0
        self._keys = cache.keys
        self._client = connect(watcher=self)
        self._tracked: TrackedValues[Pair, Own | Seal] = TrackedValues(
            limit_bytes, _size_of, _user_of
        )
        self._admission = Admission()
        self._judged_at = TRIAL_TURNS

    def __len__(self) -> int:
        return len(self._tracked)

    def bind(self, keys: Keys) -> None:
        """Of another version of the state from now on: nothing is kept that was read of the one
        before, nor what is being read of it."""
        self._keys = keys
        self._tracked.change_all()
        self._tracked.forget_last_known()

    async def close(self) -> None:
        """Close the connection. A later lookup opens another."""
        await close(self._client)

    def at_hand(self, pairs: Sequence[Pair], now: float) -> list[CachedBody | None]:
        """For each (video, user) the body that answers exactly it, if all that says so is kept."""
        if not self._admission.admitting:
            return [None] * len(pairs)
        bodies = self._bodies(pairs, self._tracked.get, now - self._cache.hard_ttl_s)
        self._admission.at_hand(len(bodies) - bodies.count(None))
        return bodies

    def last_known(self, pairs: Sequence[Pair], now: float) -> list[CachedBody | None]:
        """For each (video, user) the body that answered exactly it when Redis was last heard of:
        while it is lost, and for so long after that as was granted."""
        if self._clock() >= self._forgotten_at:
            self._tracked.forget_last_known()
        return self._bodies(pairs, self._tracked.last_known, now - self._cache.hard_ttl_s)

    def _bodies(
        self, pairs: Sequence[Pair], get: Callable[[Pair], Own | Seal | None], expired: float
    ) -> list[CachedBody | None]:
        bodies: list[CachedBody | None] = []
        for pair in pairs:
            own = get(pair)
            if own is None or isinstance(own, Seal) or own.generated_at <= expired:
                bodies.append(None)
                continue
            seal = get((pair[0], SEAL))
            if not isinstance(seal, Seal) or is_void(own, seal.value):
                bodies.append(None)
            elif isinstance(own, CachedBody):
                bodies.append(own)
            else:
                bodies.append(self._marked(get((pair[0], None)), own, seal, expired))
        return bodies

    def _marked(
        self, video: Own | Seal | None, mark: Mark, seal: Seal, expired: float
    ) -> CachedBody | None:
        """The video's body, for a user whose own it is."""
        if not isinstance(video, CachedBody) or video.generated_at <= expired:
            return None
        if is_void(video, seal.value):
            return None
        return personal_body(mark, video, self._cache.soft_ttl_s)

    async def lookup(self, pairs: Sequence[Pair]) -> list[Lookup]:
        """What is cached for each (video, user), in their order, asked of Redis and then kept."""
        self._admission.read(len(pairs))
        if not self._admission.admitting:
            return await self._cache.lookup(pairs)
        found: dict[Pair, Own | Seal] = {}
        lookups = []
        with self._tracked.reading() as reading:
            values = await strings(self._client, self._keys.answering(pairs))
            for answering in decode_answering(pairs, values, self._cache.soft_ttl_s):
                (video_id, user_id), own = answering.pair, answering.own
                video = answering.lookup.video
                if own is not None:
                    found[answering.pair] = own
                if video is not None and (user_id is None or isinstance(own, Mark)):
                    found[video_id, None] = video
                if own is not None or (user_id is None and video is not None):
                    found[video_id, SEAL] = Seal(answering.seal)
                lookups.append(answering.lookup)
            self._tracked.keep(reading, found)
        if self._tracked.turns >= self._judged_at:
            self._judge()
        return lookups

    def _judge(self) -> None:
        self._judged_at = self._tracked.turns + TRIAL_TURNS
        share = self._admission.judge()
        if not self._admission.admitting:
            log.info("near_cache_rests", at_hand=round(share, 3))
            self.changed(None)

    def forget_user(self, user_id: str) -> None:
        """Have nothing of a user, whatever Redis tells: it may be away."""
        self._tracked.change_group(user_id)

    async def settle(self) -> None:
        """Return when every change that Redis has made by now has been told."""
        with suppress(StoreCommandError):  # a refusal is an answer too
            await pipelined(self._client, [Command("PING", ())])

    def began(self) -> None:
        """Redis tells of changes from now on."""
        self._tracked.trust()

    def changed(self, names: Sequence[bytes] | None) -> None:
        """Redis tells of these keys, or of all."""
        if names is None:
            self._tracked.change_all()
            return
        for slot in map(self._keys.slot, names):
            if isinstance(slot, str):
                self._tracked.change_group(slot)  # whether a user was deleted
            elif slot is not None:
                self._tracked.change(slot)

    def lost(self) -> None:
        """Redis tells no more."""
        self._tracked.distrust()
        self._forgotten_at = self._clock() + self._last_known_s


def _user_of(pair: Pair) -> str | None:
    return pair[1] or None  # a seal is nobody's


def _size_of(kept: Iterable[tuple[Pair, Own | Seal]]) -> int:
    size = 0
    for (video_id, user_id), value in kept:
        size += ENTRY_BYTES + _id_bytes(video_id)
        if user_id:
            size += GROUP_BYTES + _id_bytes(user_id)
        if isinstance(value, CachedBody):
            size += len(value.body)
    return size


def _id_bytes(text: str) -> int:
    """What an id takes at most, whether or not Python has come to keep its UTF-8 beside it."""
    return 60 + len(text) if text.isascii() else 80 + 8 * len(text)
