"""Videos into neighbour anchors: what is done with a batch. Knows no loop and no offsets."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from feature_store.buckets import CorruptStateError
from feature_store.store import FeatureStore
from feature_store.writes import HistoryPut
from onebar.embedding.encoder import Encoder, Vectors
from onebar.embedding.index import Near, VectorIndex
from onebar.embedding.memo import Remembering
from onebar.embedding.neighbors import Likeness, NeighborConfig, neighbor_anchors
from onebar.embedding.queries import KnownQueries
from onebar.evidence.evidence import trigger_text
from onebar.evidence.text import clean_video
from onebar.records import Anchor, Features
from stream.events import BEHAVIORS, Event, InvalidEventError, Removal, Video
from stream.events.fold import fold, text_of
from stream.events.pseudonyms import NONE, Pseudonyms
from stream.kafka.records import Record, event_in
from stream.workers.metrics import (
    INDEXED,
    KNOWN_QUERIES,
    NEIGHBORS,
    NEIGHBORS_SECONDS,
    WorkerHealth,
)
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
ASKED = 4
"""Times as many videos are looked at as neighbours are wanted: many have no anchors yet."""
QUERIES = 65_536
"""Queries whose vectors are kept at hand: 48 MB at 128 dimensions."""
LIVE_S = 30.0
"""A video's event older than this is no upload but the past being read: its anchors can wait until
the index is full."""


class Neighborhood:
    """Keeps every video's vector and those of the log's queries, and writes what is near a video:
    the anchors of near videos, and near queries.

    A sensitive video is near nothing: neither does it get queries nor do its own spread.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        known: KnownQueries,
        store: FeatureStore,
        health: WorkerHealth,
        config: NeighborConfig,
        *,
        refresh_s: float,
        pseudonyms: Pseudonyms = NONE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pseudonyms = pseudonyms
        self._encoder = encoder
        self._queries = Remembering(encoder, most=QUERIES)
        self._index = index
        self._known = known
        self._store = store
        self._health = health
        self._config = config
        self._refresh_s = refresh_s
        self._clock = clock
        # One at a time, also those that nobody waits for any more: the worker was told to stop.
        self._thread = ThreadPoolExecutor(1, "index")
        # When each video's anchors were written, the oldest first; 0 is never.
        self._written: OrderedDict[str, float] = OrderedDict.fromkeys(index, 0.0)

    @property
    def facts(self) -> dict[str, Any]:
        """What a log line says of it."""
        return {
            "embedder": self._encoder.name,
            "threshold": self._config.threshold,
            "videos": len(self._index),
            "queries": len(self._known),
        }

    async def take(self, records: Sequence[Record]) -> None:
        """Put a batch of videos and behaviours into the indexes, and write the anchors of the new
        videos."""
        newest: dict[str, tuple[Video | Removal, Record]] = {}
        asked: list[tuple[str, str]] = []
        for record in records:
            try:
                event = event_in(record, self._pseudonyms)
            except InvalidEventError:
                continue  # the stream worker has set it aside
            if record.topic == BEHAVIORS:
                asked += _asked(event)
            elif isinstance(event, (Video, Removal)):
                known = newest.get(event.video_id, (event, record))[0]
                if (event.ts, event.event_id) >= (known.ts, known.event_id):
                    newest[event.video_id] = event, record
        texts = {video_id: _trigger_text(event) for video_id, (event, _) in newest.items()}
        videos = list(texts)
        await self._apart(self._put, texts, asked)
        INDEXED.set(len(self._index))
        KNOWN_QUERIES.set(len(self._known))
        now = self._clock()
        fresh: list[str] = []
        for video_id in videos:
            if video_id not in self._index:
                self._written.pop(video_id, None)
            elif now - newest[video_id][1].timestamp <= LIVE_S:
                fresh.append(video_id)
            else:
                self._written[video_id] = 0.0
                self._written.move_to_end(video_id, last=False)
        self._health.beat()
        await self._write(fresh, "new")
        for video_id in fresh:
            NEIGHBORS_SECONDS.observe(max(0.0, self._clock() - newest[video_id][1].timestamp))

    def renew(self) -> None:
        """Have the anchors of every video written anew: the store is bound to another state."""
        self._written = OrderedDict.fromkeys(self._written, 0.0)

    async def refresh(self, most: int) -> int:
        """Write the anchors of the videos whose own are oldest, if they are old enough; how many
        were written."""
        before = self._clock() - self._refresh_s
        due: list[str] = []
        for video_id, written in self._written.items():
            if written > before or len(due) == most:
                break
            due.append(video_id)
        await self._write(due, "refresh")
        return len(due)

    async def save(self, path: Path, queries: Path, offsets: Mapping[str, int]) -> None:
        """Write a snapshot of videos to `path`, and of queries to `queries` where any are wanted,
        each with what of the log is in it at least."""
        await self._apart(self._index.save, path, dict(offsets))
        if self._config.queries:
            await self._apart(self._known.index.save, queries, dict(offsets))
        log.info("index_saved", index=str(path), **self.facts)

    async def _write(self, videos: Sequence[str], reason: str) -> None:
        if not videos:
            return
        found = await self._apart(self._look, videos)
        known = await self._own_anchors({near.name for row in found for near in row})
        voices = [
            self._voices(video_id, row, known) for video_id, row in zip(videos, found, strict=True)
        ]
        anchors = await self._apart(self._chosen, videos, voices)
        await until_back(lambda: self._store.put_neighbors(anchors), self._health)
        NEIGHBORS.labels(reason).inc(len(videos))
        now = self._clock()
        for video_id in videos:
            self._written[video_id] = now
            self._written.move_to_end(video_id)
        self._health.beat()

    def _put(self, texts: Mapping[str, str], asked: Sequence[tuple[str, str]]) -> None:
        self._index.put(list(texts), self._encoder.encode(list(texts.values())))
        self._known.note(asked)

    def _chosen(
        self, videos: Sequence[str], voices: Sequence[Sequence[tuple[float, tuple[Anchor, ...]]]]
    ) -> dict[str, tuple[Anchor, ...]]:
        """The anchors of each video by the voices of its neighbours, and by the log's."""
        vectors = self._index.vectors(videos)
        most = self._config.queries
        retrieved = self._known.nearest(vectors, most) if most else [[]] * len(videos)
        return {
            video_id: neighbor_anchors(
                spoken, [near.name for near in row], self._likeness(own), self._config
            )
            for video_id, own, spoken, row in zip(videos, vectors, voices, retrieved, strict=True)
        }

    def _likeness(self, own: Vectors) -> Likeness:
        """How near queries are to the video of this vector."""
        return lambda queries: (self._queries.encode(queries) @ own).tolist()

    def _look(self, videos: Sequence[str]) -> list[list[Near]]:
        return self._index.nearest(self._index.vectors(videos), 1 + ASKED * self._config.nearest)

    async def _apart(self, work: Callable[..., Result], *given: Any) -> Result:
        """`work(*given)` in the one thread that has the index."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def _voices(
        self, video_id: str, row: Sequence[Near], known: Mapping[str, tuple[Anchor, ...]]
    ) -> list[tuple[float, tuple[Anchor, ...]]]:
        """The nearest of the row that have anchors of their own, without the video itself."""
        voices = [
            (near.similarity, known[near.name])
            for near in row
            if near.name != video_id and known[near.name]
        ]
        return voices[: self._config.nearest]

    async def _own_anchors(self, videos: set[str]) -> dict[str, tuple[Anchor, ...]]:
        """What behaviour tied to these videos: a neighbour's neighbours are not asked."""
        order = sorted(videos)
        try:
            found = await self._read(order)
        except CorruptStateError:
            # One of them can't be read; the others can.
            found = [features for video_id in order for features in await self._readable(video_id)]
        return {
            video_id: tuple(a for a in features.anchors if a.source == "behavior")
            for video_id, features in zip(order, found, strict=True)
        }

    async def _read(self, videos: Sequence[str]) -> list[Features]:
        pairs = [(video_id, None) for video_id in videos]
        most = self._config.each
        return await until_back(lambda: self._store.features(pairs, max_anchors=most), self._health)

    async def _readable(self, video_id: str) -> list[Features]:
        try:
            return await self._read([video_id])
        except CorruptStateError as error:
            log.warning("neighbor_unreadable", video_id=video_id, error=str(error))
            return [Features()]


def _trigger_text(event: Video | Removal) -> str:
    """What a video is found by; empty for one that must carry no query."""
    if isinstance(event, Removal) or event.sensitive:
        return ""
    return trigger_text(clean_video(text_of(event)))


def _asked(event: Event) -> list[tuple[str, str]]:
    """(user, query) of what enters a user's history."""
    writes = fold(event, clean_video)
    return [(write.user_id, write.query) for write in writes if isinstance(write, HistoryPut)]
