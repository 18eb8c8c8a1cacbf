"""The query cache, seen from a process that keeps what it read until Redis says it changed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from feature_store.bodies import (
    CachedBody,
    Lookup,
    Mark,
    Own,
    decode_answering,
    personal_body,
)
from feature_store.client import Client, Command, close, pipelined, strings
from feature_store.kept import Kept
from feature_store.keys import Pair
from feature_store.pipe import Watcher
from feature_store.query_cache import QueryCache
from feature_store.trial import Trial

log = structlog.get_logger(__name__)


class Connect(Protocol):
    """Gives a client for nothing but a near cache, which tells the watcher."""

    def __call__(self, *, watcher: Watcher) -> Client: ...


ENTRY_BYTES = 250
"""What a kept value takes beside its body, about: its name and its places in dictionaries."""
TRIAL_TURNS = 2
"""Generations of what is kept in a trial of whether keeping pays."""


class NearCache:
    """Lookups that go to Redis only for what this process has not read lately.

    Kept are bodies, marks, and whether a user was deleted; never that there is no body, as
    somebody may be about to put one. A value is served until Redis tells of its change, which takes
    a fraction of a millisecond while the connection is sound; a connection that has broken in
    silence is found out within `feature_store.pipe.HEARTBEAT_S` and the client's timeout. A server
    that can't tell is asked each time.

    Where hardly any pair is asked for again by the time that the limit is reached, nothing is kept
    for a while (`feature_store.trial`).

    Belongs to one event loop. Raises what `QueryCache` does.
    """

    def __init__(self, cache: QueryCache, connect: Connect, *, limit_bytes: int) -> None:
        self._cache = cache
        self._keys = cache.keys
        self._client = connect(watcher=self)
        self._bodies: Kept[Pair, Own] = Kept(limit_bytes * 3 // 4, _size_of)
        self._deletions: Kept[str, float] = Kept(
            limit_bytes // 4, lambda deletions: len(deletions) * ENTRY_BYTES
        )
        self._trial = Trial()
        self._judged_at = TRIAL_TURNS

    def __len__(self) -> int:
        return len(self._bodies) + len(self._deletions)

    async def close(self) -> None:
        """Close the connection. A later lookup opens another."""
        await close(self._client)

    def at_hand(self, pairs: Sequence[Pair], now: float) -> list[CachedBody | None]:
        """For each (video, user) the body that answers exactly it, if all that says so is kept."""
        if not self._trial.keeping:
            return [None] * len(pairs)
        body_of, forgotten_of = self._bodies.get, self._deletions.get
        expired = now - self._cache.hard_ttl_s
        missing = 0
        bodies: list[CachedBody | None] = []
        for pair in pairs:
            own, user_id = body_of(pair), pair[1]
            forgotten = -math.inf if user_id is None else forgotten_of(user_id)
            if own is None or forgotten is None or not expired < own.generated_at > forgotten:
                bodies.append(None)
                missing += 1
            elif isinstance(own, CachedBody):
                bodies.append(own)
            else:
                video = body_of((pair[0], None))
                if isinstance(video, CachedBody) and video.generated_at > expired:
                    bodies.append(personal_body(own, video, forgotten, self._cache.soft_ttl_s))
                else:
                    bodies.append(None)
                    missing += 1
        self._trial.at_hand(len(pairs) - missing)
        return bodies

    async def lookup(self, pairs: Sequence[Pair]) -> list[Lookup]:
        """What is cached for each (video, user), in their order, asked of Redis and then kept."""
        self._trial.read(len(pairs))
        if not self._trial.keeping:
            return await self._cache.lookup(pairs)
        soft_ttl_s = self._cache.soft_ttl_s
        bodies: dict[Pair, Own] = {}
        deletions: dict[str, float] = {}
        lookups = []
        with self._bodies.reading() as body_reading, self._deletions.reading() as deletion_reading:
            values = await strings(self._client, self._keys.answering(pairs))
            for pair, video, own, forgotten in decode_answering(pairs, values, soft_ttl_s):
                video_id, user_id = pair
                if own is not None and user_id is not None:
                    bodies[pair], deletions[user_id] = own, forgotten
                if video is not None and (user_id is None or isinstance(own, Mark)):
                    bodies[video_id, None] = video
                lookups.append(Lookup(personal_body(own, video, forgotten, soft_ttl_s), video))
            self._bodies.keep(body_reading, bodies)
            self._deletions.keep(deletion_reading, deletions)
        if self._bodies.turns >= self._judged_at:
            self._judge()
        return lookups

    def _judge(self) -> None:
        self._judged_at = self._bodies.turns + TRIAL_TURNS
        share = self._trial.judge()
        if not self._trial.keeping:
            log.info("near_cache_rests", at_hand=round(share, 3))
            self.changed(None)

    async def settle(self) -> None:
        """Return when every change that Redis has made by now has been told."""
        await pipelined(self._client, [Command("PING", ())])

    def began(self) -> None:
        """Redis tells of changes from now on."""
        self._bodies.trust()
        self._deletions.trust()

    def changed(self, names: Sequence[bytes] | None) -> None:
        """Redis tells of these keys, or of all."""
        if names is None:
            self._bodies.change_all()
            self._deletions.change_all()
            return
        for slot in map(self._keys.slot, names):
            if isinstance(slot, str):
                self._deletions.change(slot)
            elif slot is not None:
                self._bodies.change(slot)

    def lost(self) -> None:
        """Redis tells no more."""
        self._bodies.distrust()
        self._deletions.distrust()


def _size_of(bodies: Collection[Own]) -> int:
    sizes = [len(own.body) for own in bodies if isinstance(own, CachedBody)]
    return len(bodies) * ENTRY_BYTES + sum(sizes)
