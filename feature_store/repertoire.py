"""The repertoire in Redis: worked out from the state of all videos, and told by versions.

It is a function of the state (`Tally`), so that it is the same whatever happened on the way there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection

from feature_store.buckets import (
    CorruptStateError,
    decode_anchors,
    decode_counts,
    showable,
    total_counts,
)
from feature_store.keys import Keys
from feature_store.plan import decode_hash, decode_scored, scored_words
from feature_store.redis import client as redis_client
from feature_store.redis.client import Client, Command, load_script, pipelined, strings
from feature_store.snapshot import VideoState
from onebar.policy import RepertoirePolicy, StatePolicy

REPERTOIRE = load_script("repertoire", "may")
GONE_KEPT = 10_000
"""Queries taken out that are remembered: who has not looked for so long reads all anew."""
AT_ONCE = 1000
"""Queries in one command, and videos read in one round trip."""


class Tally:
    """Adds up videos in two goes: `meet` all of them, then `add` all of them. So memory is for the
    queries that some video may show to others, not for all that anybody ever typed."""

    def __init__(self, policy: StatePolicy, wanted: RepertoirePolicy, now: float) -> None:
        self._policy = policy
        self._wanted = wanted
        self._now = now
        self._counts: dict[str, list[int]] = {}

    def meet(self, video: VideoState) -> None:
        """Note which of its queries enough users asked or tapped."""
        may_be_shown = showable(video.askers, self._policy, self._now)
        for query in {query for _, query in video.askers}:
            if query not in self._counts and may_be_shown(query):
                self._counts[query] = [0, 0]

    def add(self, video: VideoState) -> None:
        """Count the exposures and clicks of what was met."""
        for query, counts in total_counts(video.counts).items():
            if (known := self._counts.get(query)) is not None:
                known[0] += counts.exposures
                known[1] += counts.clicks

    def queries(self, may: Callable[[str], bool] = lambda query: True) -> list[str]:
        """The repertoire, of what `may` be in it; those clicked most first, equal ones by their
        text."""
        wanted = self._wanted
        found = [
            (-clicks, query)
            for query, (exposures, clicks) in self._counts.items()
            if exposures >= wanted.exposures
            and clicks >= wanted.click_rate * exposures
            and may(query)
        ]
        return [query for _, query in sorted(found)[: wanted.size]]


class RepertoireStore:
    """Where it is kept. Every method raises what `FeatureStore`'s do."""

    def __init__(self, client: Client, keys: Keys, policy: StatePolicy) -> None:
        self._client = client
        self._keys = keys
        self._policy = policy

    def bind(self, keys: Keys) -> None:
        """Of another version of the state from the next call on; a call under way ends on the one
        that it began with."""
        self._keys = keys

    async def version(self) -> tuple[int, int]:
        """How often it has changed, and the version that last took a query out."""
        [value] = await strings(self._client, [self._keys.repertoire.version])
        try:
            version, cut = (value or b"0 0").split()
            return int(version), int(cut)
        except ValueError:
            raise CorruptStateError(f"expected two versions, got {value!r:.80}") from None

    async def since(self, version: int) -> tuple[list[str], list[str]] | None:
        """The queries that came and that went after a version; None where what went is not known
        any more: then all is to be read (`since(0)`)."""
        keys = self._keys.repertoire
        after = (f"({version}", "+inf")
        added, gone, first = await pipelined(
            self._client,
            [
                Command("ZRANGEBYSCORE", (keys.queries,), after),
                Command("ZRANGEBYSCORE", (keys.gone,), after),
                Command("ZCARD", (keys.gone,)),
            ],
        )
        if version and len(gone) == first >= GONE_KEPT:
            return None
        return [query.decode() for query in added], [query.decode() for query in gone]

    async def put(self, queries: Collection[str]) -> tuple[int, int]:
        """Make the repertoire these; how many came and how many went. Where none did, it keeps its
        version."""
        keys = self._keys.repertoire
        [known] = await pipelined(self._client, [Command("ZRANGE", (keys.queries,), (0, -1))])
        before = {query.decode() for query in known}
        wanted = set(queries)
        gone = sorted(before - wanted)
        added = [query for query in queries if query not in before]
        for at in range(0, max(len(added), len(gone)), AT_ONCE):
            some, others = added[at : at + AT_ONCE], gone[at : at + AT_ONCE]
            arguments = (GONE_KEPT, len(some), *some, *others)
            await pipelined(self._client, [Command(REPERTOIRE, tuple(keys), arguments)])
        return len(added), len(gone)

    async def copy(self, other: RepertoireStore) -> int:
        """Have the repertoire of another version of the state, with its versions, in the place of
        this one's; how many queries it has."""
        theirs, ours = other._keys.repertoire, self._keys.repertoire
        everything = (0, -1, "WITHSCORES")
        queries, gone, version = await pipelined(
            self._client,
            [
                Command("ZRANGE", (theirs.queries,), everything),
                Command("ZRANGE", (theirs.gone,), everything),
                Command("GET", (theirs.version,)),
            ],
        )
        await pipelined(self._client, [Command("DEL", (name,)) for name in ours])
        for name, reply in ((ours.queries, queries), (ours.gone, gone)):
            members = decode_scored(reply)
            for at in range(0, len(members), AT_ONCE):
                words = scored_words(members[at : at + AT_ONCE])
                await pipelined(self._client, [Command("ZADD", (name,), words)])
        if version is not None:
            await pipelined(self._client, [Command("SET", (ours.version,), (version,))])
        return len(decode_scored(queries))

    async def due(self, every_s: float) -> bool:
        """Whether it is this process's turn to work it out: once in so long, whoever asks."""
        turn = Command(
            "SET", (self._keys.repertoire_due,), ("1", "NX", "PX", round(every_s * 1000))
        )
        [taken] = await pipelined(self._client, [turn])
        return taken is not None

    async def work_out(
        self, wanted: RepertoirePolicy, may: Callable[[str], bool], now: float | None = None
    ) -> list[str]:
        """The repertoire by the state of all videos, read twice, and by what `may` be in it. Takes
        some 50 µs a video of Redis' time."""
        tally = Tally(self._policy, wanted, time.time() if now is None else now)
        keys = self._keys
        async for video in self._videos(keys):
            tally.meet(video)
        async for video in self._videos(keys):
            tally.add(video)
        return tally.queries(may)

    async def _videos(self, keys: Keys) -> AsyncIterator[VideoState]:
        """The anchors and counters of every video that has counters."""
        batch: list[str] = []
        async for name in redis_client.scan(self._client, *keys.all_counters):
            key = keys.state_key(name)
            if key is not None and key.part == "counters":
                batch.append(key.entity_id)
            if len(batch) == AT_ONCE:
                for video in await self._read(batch, keys):
                    yield video
                batch = []
        for video in await self._read(batch, keys):
            yield video

    async def _read(self, video_ids: list[str], keys: Keys) -> list[VideoState]:
        names = [
            name
            for video_id in video_ids
            for name in (keys.anchors(video_id), keys.counters(video_id))
        ]
        replies = await pipelined(self._client, [Command("HGETALL", (name,)) for name in names])
        limit = self._policy.max_entries
        videos = []
        for anchors, counts in zip(replies[::2], replies[1::2], strict=True):
            weights, askers = decode_anchors(decode_hash(anchors), limit)
            counted = decode_counts(decode_hash(counts), limit)
            videos.append(VideoState(anchors=weights, askers=askers, counts=counted))
        return videos
