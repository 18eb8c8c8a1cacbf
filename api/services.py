"""Everything the routes stand on, made from the settings: opened, and closed, together."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from api import METRICS_DIRECTORY
from api.answering.answer import LOOKUP_BUDGET_MS, Answerer
from api.answering.coalesce import Coalescer
from api.answering.explore import Exploration
from api.answering.misses import READ_TOGETHER, Misses
from api.answering.model import Model
from api.answering.once import FEW, Once
from api.answering.recheck import Recheck
from api.answering.refresh import Refresher
from api.breaker import Breaker
from api.edge.cors import Cors
from api.health import ReadinessProbe
from api.http.access import AccessControl
from api.http.auth import KeyRing, check_bind, parse_api_keys
from api.http.body import Bodies
from api.http.lag import Lag
from api.http.metrics import LOOKUPS, NEAR_VALUES
from api.http.proxies import Proxies
from api.http.rate_limits import SharedLimiter
from api.http.room import Room
from api.peers import Peers
from api.publisher import Publisher
from api.watching.watch import Watchers
from feature_store.cache.claims import Claims
from feature_store.cache.codec import CachedBody, Lookup
from feature_store.cache.near_cache import NearCache
from feature_store.cache.query_cache import QueryCache
from feature_store.keys import Keys
from feature_store.limits import SharedBuckets
from feature_store.opening import (
    cache_beside,
    connect_configured,
    open_store,
    repertoire_beside,
    versions_beside,
)
from feature_store.redis.client import StoreUnavailableError, tells_changes
from feature_store.store import FeatureStore
from feature_store.versions import POLL_S, VersionFollower, keys_of
from onebar.errors import OneBarError
from onebar.evidence.text import clean_video
from onebar.gating.follow import RepertoireFollower, RuleFollower
from onebar.gating.gate import about_of, own_anchors
from onebar.process.tasks import end_tasks
from onebar.recommending.candidates import why_barred
from onebar.recommending.loading import LoadedModel, load_model, open_gate
from onebar.records import Anchor, CacheEntry, Features, Pair
from onebar.settings import Settings
from stream.events import Event
from stream.events.fold import fold
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.producer import EventProducer

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_GENERATING = 1024
BATCHES_AHEAD = 4
"""Of the engine's: pairs of batch requests that queries are made for at once. More would not be
ready within any usual budget."""
PUT_TOGETHER = 64
"""Results that are put into the cache in one call: to write them takes a millisecond or two."""
CLAIM_PART = 0.5
"""Of the usual budget: how long a process may have the turn to generate something. If it dies, the
others still have the rest of their time."""
RULES_WITHIN_S = 1.0
"""How long the first reading of the rules may keep a server from answering at all."""


class Bound(Protocol):
    """What reads or writes one version of the state."""

    def bind(self, keys: Keys) -> None: ...


class Services:
    """One per process. Making it opens nothing, `running` does; nothing has to be there yet.

    Raises `ApiKeyError` and `UnsafeBindError`, which name the setting.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Settings], LoadedModel] = load_model
    ) -> None:
        self.settings = settings
        keys = KeyRing(parse_api_keys(settings.api_keys))
        check_bind(settings.api_host, keys)
        self.room = Room(
            requests=settings.api_requests, body_bytes=round(settings.api_bodies_mb * 2**20)
        )
        self.bodies = Bodies(self.room, timeout_s=settings.api_body_timeout_s)
        self.cors = Cors(settings.api_cors_origins)
        self.lag = Lag()
        self.pseudonyms = Pseudonyms(settings.user_id_key)

        self.store = open_store(settings)
        self._bound: list[Bound] = [self.store]
        self.redis = Breaker("redis", probe=self.store.ping, away=_redis_away, counts=_is_away)
        self.access = AccessControl(keys, self._limiter(), Proxies(settings.trusted_proxies))
        self.cache = cache_beside(self.store, settings)
        read = partial(_guarded, self.redis, self.store.features)
        self.features: Coalescer[Pair, Features] = Coalescer(read, max_items=READ_TOGETHER)
        read_counted = partial(_guarded, self.redis, partial(self.store.features, counted=True))
        counted: Coalescer[Pair, Features] = Coalescer(read_counted, max_items=READ_TOGETHER)
        self.near = self._near_cache() if tells_changes(self.store.client) else None
        lookup = partial(_guarded, self.redis, _counted(self.cache, self.near))
        lookups: Coalescer[Pair, Lookup] = Coalescer(lookup)
        claims = Claims(
            self.store.client,
            self.store.keys,
            settings.cache_soft_ttl_s,
            CLAIM_PART * (settings.budget_ms or LOOKUP_BUDGET_MS) / 1000,
        )
        self.results = TogetherCache(self.cache, claims, self.redis)
        self.gate = open_gate(settings)
        self.rules = RuleFollower(self.store, self.gate)
        shelf = repertoire_beside(self.store)
        self.repertoire = RepertoireFollower(shelf, self.gate)
        self.version = VersionFollower(versions_beside(self.store, settings), settings, "api")
        self._bound += [self.cache, claims, shelf, *([] if self.near is None else [self.near])]
        self._settled = asyncio.Event()
        self.model = Model(
            settings, TogetherStore(self.features, counted), self.results, gate=self.gate, load=load
        )
        self.refresher = Refresher(self.model)
        recheck = Recheck(
            gate=self.gate, features=self.features, refresher=self.refresher, k=settings.kept
        )
        misses = Misses(
            features=self.features,
            counted=counted,
            model=self.model,
            gate=self.gate,
            recheck=recheck,
            lag=self.lag,
            k=settings.k,
            max_batched=BATCHES_AHEAD * settings.batch_size * settings.engine_workers,
            max_generating=max(MIN_GENERATING, 4 * settings.queue_size),
            leave_out=settings.leave_out,
        )
        self.answerer = Answerer(
            lookups=lookups,
            lookup_many=lookup,
            at_hand=_nothing if self.near is None else self.near.at_hand,
            last_known=_nothing if self.near is None else self.near.last_known,
            redis=self.redis,
            lag=self.lag,
            misses=misses,
            recheck=recheck,
            model=self.model,
            refresher=self.refresher,
            gate=self.gate,
            budget_ms=settings.budget_ms,
            k=settings.k,
            exploration=_exploration(settings),
        )
        self.publisher = Publisher(partial(EventProducer, settings))
        self.health = ReadinessProbe(
            self.store, self.publisher, self.model, peers=_peers(settings.api_workers)
        )
        together = TogetherStore(self.features, counted)
        self.watchers = Watchers(together, self.model, self.gate)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect and load, both behind the server's back; close in the end."""
        self.lag.start()
        self.model.start()
        self.publisher.start()
        with suppress(OneBarError, TimeoutError):  # where they can't be read, that is gone on with
            async with asyncio.timeout(RULES_WITHIN_S):
                await self._move(await self.version.learn())
        followers = (
            self._follow_version(),
            self._once_settled(self.rules.follow),
            self._once_settled(self.repertoire.follow),
            self.health.watch(),
        )
        following = [asyncio.create_task(each) for each in followers]
        try:
            yield
        finally:
            self.watchers.close()
            self.lag.stop()
            await end_tasks(*following)
            await self.version.end()
            await self.redis.stop()
            await self.refresher.stop()
            await asyncio.gather(self.model.stop(), self.publisher.stop())
            if self.near is not None:
                await self.near.close()
            await self.store.close()

    async def _follow_version(self) -> None:
        """Follow the live version of the state, once it is known which one that is."""
        while not self._settled.is_set():
            try:
                await self._move(await self.version.learn())
            except OneBarError as error:
                log.warning("live_version_unread", error=str(error))
                await asyncio.sleep(POLL_S)
        await self.version.follow(self._move)

    async def _once_settled(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Rules are those of the live version; before it is known there are no answers."""
        await self._settled.wait()
        await follow()

    async def _move(self, version: str) -> None:
        """Answer from this version of the state; a call under way ends on the one before."""
        keys = keys_of(self.settings, version)
        if keys != self.store.keys:
            for part in self._bound:
                part.bind(keys)
            self.rules.restart()
            self.repertoire.restart()
        with suppress(OneBarError):  # they are looked at again and again
            await self.rules.look()
            await self.repertoire.look()
        self._settled.set()
        await self.version.settle(version)

    def _near_cache(self) -> NearCache | None:
        settings = self.settings
        limit_bytes = round(settings.near_cache_mb * 2**20)
        if limit_bytes == 0:
            return None
        return NearCache(
            self.cache,
            partial(connect_configured, settings),
            limit_bytes=limit_bytes,
            last_known_s=settings.last_known_s,
        )

    def _limiter(self) -> SharedLimiter | None:
        per_s = self.settings.rate_limit_per_s
        if not per_s:
            return None
        buckets = SharedBuckets(self.store.client, self.store.keys, per_s)
        self._bound.append(buckets)

        async def fetch(caller: str, wanted: int, owed: bool) -> tuple[int, float]:
            return await self.redis.call(lambda: buckets.take(caller, wanted, owed=owed))

        return SharedLimiter(per_s, fetch)

    def _stores(self) -> list[FeatureStore]:
        """The state, and its other versions: one that is filled, and one that is kept."""
        return [self.store, *map(self.store.of, self.version.others)]

    def pair(self, video_id: str, user_id: str | None) -> Pair:
        """What is asked for: the video, and the user by the pseudonym that the state has for them
        where there is a key."""
        return video_id, None if user_id is None else self.pseudonyms.of(user_id)

    async def apply(self, event: Event) -> None:
        """Have an event's effect on the state now, ahead of the log; it is had once."""
        writes = [(write, None) for write in fold(event, clean_video)]
        await asyncio.gather(*(store.apply(writes) for store in self._stores()))
        await self.rules.look()

    def may_be_shown(self, video_id: str, known: Features) -> tuple[Anchor, ...]:
        """The anchors of a video that anybody may be shown at this moment."""
        if not self.gate.open or why_barred(known) is not None:
            return ()
        about, now, own = about_of(video_id, known), time.time(), own_anchors(known.anchors)
        if self.gate.barred(about, now) is not None:
            return ()
        return tuple(
            anchor
            for anchor in known.anchors
            if self.gate.judge(anchor.query, about, now, anchors=own) is None
        )

    async def forget(self, user_id: str, ts: float) -> None:
        """Delete a user in the store; nothing personal is served from here once this returns."""
        if self.near is not None:
            self.near.forget_user(user_id)
        await asyncio.gather(*(store.delete_user(user_id, ts) for store in self._stores()))
        if self.near is not None:
            await self.near.settle()


def _peers(count: int) -> Peers | None:
    """The other processes of this server; None where it is the only one."""
    directory = os.environ.get(METRICS_DIRECTORY)
    return Peers(Path(directory), count) if directory and count > 1 else None


def _exploration(settings: Settings) -> Exploration | None:
    if not settings.exploration:
        return None
    return Exploration(settings.exploration, settings.exploration_slot)


def _is_away(error: Exception) -> bool:
    return isinstance(error, StoreUnavailableError)


def _redis_away(why: str) -> Exception:
    return StoreUnavailableError(f"Redis counts as away and is only probed: {why}")


async def _guarded(
    breaker: Breaker, many: Callable[[Sequence[Item]], Awaitable[Result]], items: Sequence[Item]
) -> Result:
    """What `many` gives for the items, unless the server counts as away."""
    return await breaker.call(lambda: many(items))


def _counted(
    cache: QueryCache, near: NearCache | None
) -> Callable[[Sequence[Pair]], Awaitable[list[Lookup]]]:
    async def lookup(pairs: Sequence[Pair]) -> list[Lookup]:
        LOOKUPS.inc(len(pairs))
        if near is None:
            return await cache.lookup(pairs)
        found = await near.lookup(pairs)
        NEAR_VALUES.set(len(near))
        return found

    return lookup


def _nothing(pairs: Sequence[Pair], now: float) -> list[CachedBody | None]:
    """Without a near cache Redis is asked each time."""
    return [None] * len(pairs)


class TogetherStore:
    """A `FeatureReader` whose calls of one tick share a round trip."""

    def __init__(
        self, features: Coalescer[Pair, Features], counted: Coalescer[Pair, Features]
    ) -> None:
        self._features = features
        self._counted = counted

    async def features(self, pairs: Sequence[Pair], *, counted: bool = False) -> list[Features]:
        source = self._counted if counted else self._features
        return await asyncio.gather(*map(source.ask, pairs))


class TogetherCache:
    """A `ResultCache` whose calls of one tick share a round trip, and by which the same is not
    generated for two processes at once."""

    def __init__(self, cache: QueryCache, claims: Claims, redis: Breaker) -> None:
        self.once = Once(partial(_guarded, redis, claims.look), claims.hold_s)
        self.digests: Coalescer[str, CachedBody | None] = Coalescer(
            partial(_guarded, redis, cache.by_digest)
        )
        self.entries: Coalescer[CacheEntry, bool] = Coalescer(
            partial(_guarded, redis, cache.put), max_items=PUT_TOGETHER
        )

    async def by_digest(self, digests: Sequence[str]) -> list[CachedBody | None]:
        if len(digests) <= FEW:
            return await self.once.by_digest(digests)
        return await asyncio.gather(*map(self.digests.ask, digests))

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        return await asyncio.gather(*map(self.entries.ask, entries))
