"""What a version of the state needs beside the fold of the log to answer as the live one does:
neighbour anchors, the repertoire, and ready queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from feature_store.cache.codec import CachedBody
from feature_store.cache.query_cache import QueryCache
from feature_store.opening import cache_beside, repertoire_beside
from feature_store.store import FeatureStore
from onebar.gating.follow import RepertoireFollower, RuleFollower
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import open_gate
from onebar.records import CacheEntry, Pair, QueryResult
from onebar.settings import Settings

log = structlog.get_logger(__name__)

AT_ONCE = 128
"""Pairs answered together."""
GAVE_ENOUGH = 20
"""New pairs between two looks below which the next look is the last."""
LOOKS = 3


class Warmed(Struct):
    """What was made ready: `pairs` that the live version has queries for, of which so many could be
    answered, and what was carried over. `generated` of them the model was run for."""

    pairs: int = 0
    answered: int = 0
    generated: int = 0
    neighbors: int = 0
    repertoire: int = 0


class SharedGenerations:
    """The cache of one version, which takes what the same prompt gave under another from there: the
    model is run only where the evidence is another."""

    def __init__(self, cache: QueryCache, other: QueryCache) -> None:
        self._cache = cache
        self._other = other
        self.lacking = 0
        """Digests that neither has: the model was run for them, but for those it may not be."""

    async def by_digest(self, digests: Sequence[str]) -> list[CachedBody | None]:
        found = await self._cache.by_digest(digests)
        missing = [at for at, body in enumerate(found) if body is None]
        if missing:
            others = await self._other.by_digest([digests[at] for at in missing])
            for at, body in zip(missing, others, strict=True):
                found[at] = body
        self.lacking += found.count(None)
        return found

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        return await self._cache.put(entries)


async def carry(live: FeatureStore, target: FeatureStore) -> Warmed:
    """Carry over what no log holds: neighbour anchors and the repertoire."""
    done = Warmed()
    async for batch in live.neighbors():
        await target.keep_neighbors(batch)
        done.neighbors += len(batch)
    done.repertoire = await repertoire_beside(target).copy(repertoire_beside(live))
    return done


Told = Callable[[int, int], None]
"""Takes how many pairs are done, and how many there are."""


class Warming:
    """Answers in a version of the state, which is not live yet, what the live one has ready: newest
    first, by the model of the settings, through the gate. Each `look` does what has come since."""

    def __init__(
        self, settings: Settings, live: FeatureStore, target: FeatureStore, done: Warmed, most: int
    ) -> None:
        self._live = cache_beside(live, settings)
        self._target = cache_beside(target, settings)
        self._most = most
        self._since = 0.0
        self.done = done
        self._gate = open_gate(settings)
        self._rules = RuleFollower(target, self._gate)
        self._repertoire = RepertoireFollower(repertoire_beside(target), self._gate)
        self._shared = SharedGenerations(self._target, self._live)
        self._model = LiveModel(settings, target, self._shared, gate=self._gate)

    async def open(self) -> None:
        """Load the model. Raises what `LiveModel.open` does."""
        await self._model.open()

    async def close(self) -> None:
        await self._model.close()

    async def look(self, told: Told = lambda done, pairs: None) -> int:
        """Answer what the live version has ready since the last look; how many pairs that were."""
        began = time.time()
        await self._rules.look()
        await self._repertoire.look()
        kept = await self._live.kept(self._most)
        pairs = [pair for pair, read_at in kept if read_at >= self._since]
        self.done.pairs += len(pairs)
        for at in range(0, len(pairs), AT_ONCE):
            await self._answer(pairs[at : at + AT_ONCE])
            told(min(at + AT_ONCE, len(pairs)), len(pairs))
        await self._target.copy_recent(self._live)
        self._since = began - 1.0
        return len(pairs)

    async def _answer(self, pairs: Sequence[Pair]) -> None:
        with self._model.use() as recommender:
            results = await recommender.recommend(pairs)
        self.done.answered += sum(isinstance(result, QueryResult) for result in results)
        self.done.generated = self._shared.lacking
