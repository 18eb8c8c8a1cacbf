"""The neighbour worker: what was asked after near videos, and what of the log is near itself, for
every video as it is uploaded.

It reads the whole topics of videos and behaviours by itself, for a neighbour may be in any
partition, and keeps vectors of videos and of queries in memory; snapshots spare it the reading at
the next start. A second worker does the same work over again and writes the same: it is a spare,
not a share.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from onebar.embedding.encoder import EmbedderError, Encoder, load_encoder, threshold_of
from onebar.embedding.index import CARD, VectorIndex, VectorIndexError
from onebar.embedding.neighbors import NeighborConfig
from onebar.embedding.queries import KnownQueries
from onebar.process.files import occupied
from onebar.process.garbage import spare_garbage_collection
from onebar.process.start import begin
from onebar.recommending.loading import configured_embedder
from onebar.settings import Settings
from stream.events import BEHAVIORS, VIDEOS
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.consumer import OffsetGoneError, Offsets, RecordConsumer, begin_offsets
from stream.kafka.topics import partition_counts
from stream.workers.health import Lags, watching
from stream.workers.neighborhood import Neighborhood
from stream.workers.retry import until_back
from stream.workers.runtime import Runtime, open_runtime, unless

log = structlog.get_logger(__name__)

BATCH = 256
"""Most records taken together."""
REFRESHED = 64
"""Videos whose anchors are worked out anew between two fetches."""
LOOK_S = 10.0
"""Between two looks whether partitions were added to a topic."""


class NoEmbedderError(EmbedderError):
    """No embedder was named, and the checkpoint brings none."""

    def __init__(self) -> None:
        super().__init__(
            "ONEBAR_EMBEDDER is not set and the checkpoint brings no embedder: name one that "
            "`onebar embed train` made, or a sentence-transformers model"
        )


async def run_neighbors(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then write the snapshots.

    Waits for Kafka and Redis as long as they are away. Raises `EmbedderError`, `VectorIndexError`,
    `CheckpointError`, `RegistryError`.
    """
    embedder = await asyncio.to_thread(configured_embedder, settings)
    if embedder is None:
        raise NoEmbedderError
    encoder = await asyncio.to_thread(load_encoder, embedder)
    threshold = settings.neighbor_threshold
    config = NeighborConfig(
        nearest=settings.neighbor_nearest,
        queries=settings.neighbor_queries,
        limit=settings.neighbor_limit,
        threshold=threshold_of(embedder) if threshold is None else threshold,
    )
    async with open_runtime(settings, "neighbors") as runtime:
        if not runtime.stop.is_set():
            await _serve(runtime.settings, runtime, encoder, config)


async def _serve(
    settings: Settings, runtime: Runtime, encoder: Encoder, config: NeighborConfig
) -> None:
    def hood_of(videos: VectorIndex, queries: VectorIndex) -> Neighborhood:
        return Neighborhood(
            encoder,
            videos,
            KnownQueries(
                encoder,
                queries,
                most=settings.neighbor_queries_kept,
                users=settings.showable_users,
            ),
            runtime.store,
            runtime.health,
            config,
            refresh_s=settings.neighbor_refresh_s,
            pseudonyms=Pseudonyms(settings.user_id_key),
        )

    topics = [VIDEOS, BEHAVIORS] if config.queries else [VIDEOS]
    videos = open_index(settings.index, encoder)
    kept = beside(settings.index) if settings.index is not None and config.queries else None
    queries = open_index(kept, encoder)
    # Of either topic, where its own index ends.
    offsets = of_topic(videos.offsets, VIDEOS) | of_topic(queries.offsets, BEHAVIORS)
    hood = hood_of(videos, queries)
    again = True
    while again:
        consumer = await _start(settings, runtime, topics, offsets)
        if consumer is None:
            break
        try:
            again = await _loop(settings, runtime, hood, offsets, consumer)
        except OffsetGoneError as error:
            # A topic was made anew since the snapshot: what it says of the log is void.
            log.warning("index_of_another_log", error=str(error), index=str(settings.index))
            hood = hood_of(*(VectorIndex(encoder.name, encoder.dim) for _ in range(2)))
            offsets.clear()
        finally:
            await consumer.stop()
    log.info("neighbors_stopped")


async def _start(
    settings: Settings, runtime: Runtime, topics: Sequence[str], offsets: Mapping[str, int]
) -> RecordConsumer | None:
    """A consumer of all of these topics from these offsets on; None where the worker was told to
    stop."""
    start_from: Offsets | None = None
    if offsets:
        start_from = await until_back(
            lambda: _everywhere(settings, topics, offsets), runtime.health
        )
    consumer = RecordConsumer(
        settings, topics, group=None, max_records=BATCH, alone=True, start_from=start_from
    )
    started = await unless(runtime.stop, until_back(consumer.start, runtime.health))
    return consumer if started else None


async def _everywhere(
    settings: Settings, topics: Sequence[str], offsets: Mapping[str, int]
) -> Offsets:
    """Where to read every partition from: a snapshot knows nothing of those that were empty, and
    what it ends with may have expired since."""
    counts = await partition_counts(settings)
    prefix = settings.topic_prefix
    pairs = [(prefix + topic, p) for topic in topics for p in range(counts.get(prefix + topic, 0))]
    begins = await begin_offsets(settings, pairs)
    return {
        (name[len(prefix) :], p): max(offsets.get(f"{name[len(prefix) :]}/{p}", first), first)
        for (name, p), first in begins.items()
    }


async def _loop(
    settings: Settings,
    runtime: Runtime,
    hood: Neighborhood,
    offsets: dict[str, int],
    consumer: RecordConsumer,
) -> bool:
    """Work until the worker is told to stop; True where it is to go on with a new consumer, for
    there are partitions that this one does not read. Keeps `offsets` at what has been taken."""
    saved = looked = time.monotonic()

    async def save() -> None:
        if settings.index is None:
            return
        try:
            await hood.save(settings.index, beside(settings.index), offsets)
        except OSError as error:  # a full disk: the next start reads the log instead
            log.warning("index_not_saved", index=str(settings.index), error=str(error))

    async def work() -> None:
        nonlocal saved, looked
        while True:
            if runtime.leave.is_set():
                await runtime.move()
                hood.renew()
            records = await until_back(lambda: consumer.fetch(0.05), runtime.health)
            await hood.take(records)
            for record in records:
                offsets[f"{record.topic}/{record.partition}"] = record.offset + 1
            await hood.refresh(REFRESHED)
            now = time.monotonic()
            if now - saved >= settings.index_save_s:
                await save()
                saved = time.monotonic()
            if now - looked >= LOOK_S:
                if await until_back(consumer.outgrown, runtime.health):
                    log.info("partitions_came")
                    return
                looked = now

    async def lags() -> Lags:
        return await consumer.lags()

    runtime.health.started()
    spare_garbage_collection()
    log.info("neighbors_started", **hood.facts, pid=os.getpid())
    async with watching(runtime, lags):
        again = await unless(runtime.stop, work())
    await save()
    return again


def beside(index: Path) -> Path:
    """Where the index of queries is kept, by where that of videos is."""
    return index.with_name(f"{index.name}-queries")


def of_topic(offsets: Mapping[str, int], topic: str) -> dict[str, int]:
    """Those of one topic."""
    return {name: at for name, at in offsets.items() if name.rpartition("/")[0] == topic}


def open_index(path: Path | None, encoder: Encoder) -> VectorIndex:
    """The index of the snapshot, if it is of this encoder's space and sound; else an empty one, to
    be filled from the log. What was written by the old one goes on serving meanwhile.

    Raises `VectorIndexError` where something else is at `path`: it could never be saved there.
    """
    if path is not None and occupied(path, CARD):
        raise VectorIndexError(f"{path} exists and is no index: choose another directory")
    if path is not None and path.exists():
        try:
            index = VectorIndex.load(path)
        except VectorIndexError as error:
            log.warning("index_refused", error=str(error))
        else:
            if (index.space, index.dim) == (encoder.name, encoder.dim):
                return index
            log.warning("index_refused", error=f"{path} is of {index.space}, not {encoder.name}")
    return VectorIndex(encoder.name, encoder.dim)


def main() -> int:
    """Run the worker with the environment's settings; the exit status."""
    settings = Settings()
    begin(settings, "neighbors")
    asyncio.run(run_neighbors(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
