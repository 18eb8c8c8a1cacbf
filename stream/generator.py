"""The generator worker: impressions in Kafka become queries in the cache, and on a topic."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence

import orjson
import structlog
from msgspec import UNSET

from feature_store.query_cache import Lookup, QueryCache
from feature_store.records import QueryResult
from onebar.batching import Batcher
from onebar.checkpoint import open_checkpoint
from onebar.engines import Engine, load_engine
from onebar.logs import configure_logging
from onebar.prompt import PromptConfig
from onebar.recommend import Pair, Recommender, UnknownVideoError
from onebar.settings import Settings
from stream.consumer import RecordConsumer
from stream.dead_letters import dead_letter
from stream.events import IMPRESSIONS, QUERIES, Impression, InvalidEventError, parse
from stream.groups import generator_group
from stream.metrics import CACHED_SECONDS, GENERATION_SECONDS, LAG, Health
from stream.metrics import IMPRESSIONS as COUNT
from stream.offsets import OffsetTracker
from stream.producer import EventProducer, Message
from stream.records import Record
from stream.retry import until_back
from stream.runtime import Runtime, open_runtime

log = structlog.get_logger(__name__)

IN_FLIGHT = 3
"""Batches under way at once: one is read and one written while one is in the engine."""
MAX_PENDING = 4096
"""Impressions in hand, held ones included, before no more are fetched."""
HOLD_WAITS_S = (0.1, 0.3, 0.6, 1.0)
"""Pauses after which an impression whose video is unknown is tried again: the video's event may
be a moment behind. After the last it is given up and counted."""


def to_pair(record: Record) -> Pair:
    """The (video, user) of an impression. Raises `InvalidEventError`."""
    event = parse(record.value)
    if not isinstance(event, Impression):
        raise InvalidEventError(f"Expected an impression, got `{event.type}` - at `$.type`")
    return event.video_id, None if event.user_id is UNSET else event.user_id


def query_message(pair: Pair, result: QueryResult) -> Message:
    """What is told on `onebar.queries` of one generation."""
    video_id, user_id = pair
    body: dict[str, object] = {
        "video_id": video_id,
        "queries": [{"text": query.text, "score": query.score} for query in result.queries],
        "rejected": result.rejected,
        "model": result.model,
        "evidence_digest": result.evidence_digest,
        "generated_at": result.generated_at,
    }
    if user_id is not None:
        body["user_id"] = user_id
    return QUERIES, video_id.encode(), orjson.dumps(body), ()


def is_fresh(lookup: Lookup, pair: Pair, now: float) -> bool:
    """Whether what is cached for a pair needs no new generation yet."""
    body = lookup.video if pair[1] is None else lookup.personal
    return body is not None and body.fresh_until > now


class GeneratorWorker:
    """Answers impressions, batch by batch."""

    def __init__(
        self,
        recommender: Recommender,
        cache: QueryCache,
        producer: EventProducer,
        health: Health,
        *,
        late_after_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._recommender = recommender
        self._cache = cache
        self._producer = producer
        self._health = health
        self._late_after_s = late_after_s
        self._clock = clock

    async def take(self, records: Sequence[Record]) -> list[Record]:
        """Answer a batch, however long Redis or Kafka is away; the ones whose video is unknown.

        When it returns, each other impression has its queries in the cache and on the topic, or
        is skipped and counted, or is a dead letter. May be called for several batches at once;
        cancelling it is safe.
        """
        letters: list[Message] = []
        wanted: dict[Pair, Record] = {}
        now = self._clock()
        for record in records:
            try:
                pair = to_pair(record)
            except InvalidEventError as error:
                log.warning("dead_letter", offset=record.offset, reason=str(error)[:300])
                letters.append(dead_letter(record, error))
                COUNT.labels("dead_letter").inc()
                continue
            if now - record.timestamp > self._late_after_s:
                COUNT.labels("late").inc()
            elif pair in wanted:
                COUNT.labels("repeated").inc()
            else:
                wanted[pair] = record
        if letters:
            await self._send(letters)
        return list((await self._answer(wanted)).values())

    async def _answer(self, wanted: dict[Pair, Record]) -> dict[Pair, Record]:
        """Answer these; the ones whose video is not known (yet)."""
        if not wanted:
            return {}
        started = self._clock()
        pairs = list(wanted)
        lookups = await until_back(lambda: self._cache.lookup(pairs), self._health)
        due = [
            pair
            for pair, lookup in zip(pairs, lookups, strict=True)
            if not is_fresh(lookup, pair, started)
        ]
        COUNT.labels("fresh").inc(len(pairs) - len(due))
        if not due:
            return {}
        results = await until_back(lambda: self._recommender.recommend(due), self._health)
        unknown: dict[Pair, Record] = {}
        messages: list[Message] = []
        now = self._clock()
        for pair, result in zip(due, results, strict=True):
            if isinstance(result, QueryResult):
                COUNT.labels("rejected" if result.rejected else "generated").inc()
                CACHED_SECONDS.observe(max(0.0, now - wanted[pair].timestamp))
                messages.append(query_message(pair, result))
            elif isinstance(result, UnknownVideoError):
                unknown[pair] = wanted[pair]
            else:
                log.error("generation_failed", video_id=pair[0], error=str(result))
                COUNT.labels("failed").inc()
                messages.append(dead_letter(wanted[pair], result))
        GENERATION_SECONDS.observe(max(0.0, now - started))
        await self._send(messages)
        return unknown

    async def _send(self, messages: list[Message]) -> None:
        if messages:
            await until_back(lambda: self._producer.send_messages(messages), self._health)


class Loop:
    """Fetches, keeps a few batches under way, and commits what is done behind them.

    Impressions of unknown videos are held aside, so that they hold up nobody else.
    """

    def __init__(
        self, settings: Settings, worker: GeneratorWorker, health: Health, stop: asyncio.Event
    ) -> None:
        self._batch = settings.batch_size
        self._worker = worker
        self._health = health
        self._stop = stop
        self._tracker = OffsetTracker()
        self._batches: set[asyncio.Task[None]] = set()
        self._holds: set[asyncio.Task[None]] = set()
        self._consumer = RecordConsumer(
            settings,
            [IMPRESSIONS],
            group=generator_group(settings),
            max_records=IN_FLIGHT * self._batch,
            on_assigned=self._tracker.forget,
        )

    async def run(self) -> None:
        """Until told to stop; then what is in hand is finished and committed."""
        await until_back(self._consumer.start, self._health)
        self._health.started()
        log.info("generator_started", pid=os.getpid())
        try:
            while not self._stop.is_set():
                self._health.beat()
                await self._fetch()
                await self._commit()
            while self._batches or self._holds:
                await asyncio.wait(self._batches | self._holds)
                self._reap()
            await self._commit()
        finally:
            for task in self._batches | self._holds:
                task.cancel()
            await self._consumer.stop()
        log.info("generator_stopped")

    async def _fetch(self) -> None:
        if len(self._batches) >= IN_FLIGHT or self._tracker.pending >= MAX_PENDING:
            busy = self._batches or self._holds
            await asyncio.wait(busy, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            return
        records = await until_back(lambda: self._consumer.fetch(0.1), self._health)
        self._tracker.begin(records)
        for start in range(0, len(records), self._batch):
            batch = records[start : start + self._batch]
            self._batches.add(asyncio.create_task(self._take(batch)))
        LAG.set(await self._consumer.lag())

    async def _take(self, records: Sequence[Record]) -> None:
        unknown = await self._worker.take(records)
        held = {record.position for record in unknown}
        self._tracker.done(record for record in records if record.position not in held)
        if unknown:
            self._holds.add(asyncio.create_task(self._hold(unknown)))

    async def _hold(self, unknown: list[Record]) -> None:
        records = unknown
        for wait in HOLD_WAITS_S:
            await asyncio.sleep(wait)
            unknown = await self._worker.take(unknown)
            if not unknown:
                break
        COUNT.labels("unknown_video").inc(len(unknown))
        self._tracker.done(records)

    def _reap(self) -> None:
        for tasks in (self._batches, self._holds):
            for task in [task for task in tasks if task.done()]:
                tasks.discard(task)
                task.result()

    async def _commit(self) -> None:
        self._reap()
        offsets = self._tracker.committable()
        if not offsets:
            return
        accepted = await until_back(lambda: self._consumer.commit(offsets), self._health)
        if accepted:
            self._tracker.committed(offsets)


def load_model(settings: Settings) -> tuple[Engine, PromptConfig]:
    """The engine and prompt shape of the checkpoint that the settings name."""
    checkpoint = open_checkpoint(settings.checkpoint)
    engine = load_engine(
        checkpoint,
        engine=settings.engine,
        beam_size=max(settings.beam_size, settings.k),
        workers=settings.engine_workers,
        threads=settings.engine_threads,
    )
    return engine, checkpoint.card.prompt


async def run_generator(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish what is in hand and commit.

    Waits for Kafka and Redis as long as they are away. Raises `CheckpointError` where there is no
    model to run.
    """
    engine, prompt_config = await asyncio.to_thread(load_model, settings)
    try:
        async with open_runtime(settings) as runtime:
            if not runtime.stop.is_set():
                await _generate(settings, runtime, engine, prompt_config)
    finally:
        engine.close()


async def _generate(
    settings: Settings, runtime: Runtime, engine: Engine, prompt_config: PromptConfig
) -> None:
    cache = QueryCache(
        runtime.client, runtime.keys, settings.cache_soft_ttl_s, settings.cache_hard_ttl_s
    )
    # Every impression needs two prompts at most, and no batch may meet a full queue.
    queue = max(settings.queue_size, 4 * IN_FLIGHT * settings.batch_size)
    batcher = Batcher(
        engine,
        k=settings.k,
        max_batch=settings.batch_size,
        max_wait_s=settings.batch_wait_s,
        queue_size=queue,
        workers=settings.engine_workers,
    )
    await batcher.start()
    try:
        recommender = Recommender(
            runtime.store, cache, batcher, prompt_config=prompt_config, k=settings.k
        )
        worker = GeneratorWorker(
            recommender,
            cache,
            runtime.producer,
            runtime.health,
            late_after_s=settings.late_after_s,
        )
        loop = Loop(settings, worker, runtime.health, runtime.stop)
        await loop.run()
        await recommender.drain()
    finally:
        await batcher.stop()


def main() -> int:
    """Run a generator with the environment's settings; the exit status."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_json)
    asyncio.run(run_generator(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
