"""The generator worker: impressions in Kafka become queries in the cache, and on a topic."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from functools import partial

import structlog

from feature_store.opening import cache_beside, repertoire_beside
from feature_store.repertoire import RepertoireStore
from feature_store.writes import Position
from onebar.errors import OneBarError
from onebar.gating.follow import RepertoireFollower, RuleFollower
from onebar.gating.gate import Gate
from onebar.gating.rules import About
from onebar.process.garbage import spare_garbage_collection
from onebar.process.start import begin
from onebar.process.tasks import end_tasks
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import LoadedModel, load_model, open_gate
from onebar.settings import Settings
from stream.events import IMPRESSIONS
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.consumer import RecordConsumer
from stream.kafka.groups import generator_group
from stream.kafka.offsets import OffsetTracker
from stream.kafka.records import Record
from stream.workers.generation import Generation
from stream.workers.health import Lags, watching
from stream.workers.metrics import IMPRESSIONS as COUNT
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back
from stream.workers.runtime import Runtime, open_runtime, unless

log = structlog.get_logger(__name__)

IN_FLIGHT = 3
"""Batches under way at once: one is read and one written while one is in the engine."""
MAX_PENDING = 4096
"""Impressions in hand, held ones included, before no more are fetched."""
HOLD_WAITS_S = (0.1, 0.3, 0.6, 1.0)
"""Pauses after which an impression whose video is unknown is tried again: the video's event may
be a moment behind. After the last it is given up and counted."""
STOP_WITHIN_S = 3.5
"""How long what is in hand may take to finish once the worker is told to stop."""
REPERTOIRE_LOOK_S = 5.0
"""How often a worker asks whether it is its turn to work the repertoire out."""
COMMIT_WITHIN_S = 1.0
"""And how long the last commit may take."""


class GeneratorLoop:
    """Fetches, keeps a few batches under way, and commits what is done behind them.

    Impressions of unknown videos are held aside, so that they hold up nobody else.
    """

    def __init__(
        self, settings: Settings, generation: Generation, health: WorkerHealth, leave: asyncio.Event
    ) -> None:
        self._batch = settings.batch_size
        self._generation = generation
        self._health = health
        self._leave = leave
        self._tracker = OffsetTracker()
        self._batches: set[asyncio.Task[None]] = set()
        self._holds: set[asyncio.Task[None]] = set()
        self._consumer = RecordConsumer(
            settings,
            [IMPRESSIONS],
            group=generator_group(settings),
            max_records=IN_FLIGHT * self._batch,
            on_assigned=self._assigned,
        )
        # Up to where the partitions went when they came to this worker: another may have answered
        # what lies before, and been ended before it told of it. None until that is heard.
        self._came: dict[tuple[str, int], int | None] = {}

    async def run(self) -> None:
        """Until told to leave; then what is in hand is finished and committed, if it can be within
        `STOP_WITHIN_S`: the rest comes again."""
        if not await unless(self._leave, until_back(self._consumer.start, self._health)):
            return
        self._health.started()
        spare_garbage_collection()
        log.info("generator_started", pid=os.getpid())
        try:
            await unless(self._leave, self._serve())
            if self._batches or self._holds:
                await asyncio.wait(self._batches | self._holds, timeout=STOP_WITHIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_WITHIN_S):
                    await self._commit()
        finally:
            for task in self._batches | self._holds:
                task.cancel()
            await self._consumer.stop()
        log.info("generator_stopped")

    def _assigned(self, partitions: list[tuple[str, int]]) -> None:
        self._tracker.forget(partitions)
        self._came.update(dict.fromkeys(partitions))

    def _again(self, records: Sequence[Record]) -> frozenset[Position]:
        """Those that another worker may have had before."""
        for pair, end in self._came.items():
            if end is None:
                self._came[pair] = self._consumer.end(*pair)
        return frozenset(
            record.position
            for record in records
            if record.offset < (self._came.get((record.topic, record.partition)) or 0)
        )

    async def lags(self) -> Lags:
        """Impressions of each partition that are not fetched, or still in hand."""
        unread = await self._consumer.lags()
        return {pair: behind + self._tracker.pending_of(pair) for pair, behind in unread.items()}

    async def _serve(self) -> None:
        while True:
            await self._fetch()
            await self._commit()

    async def _fetch(self) -> None:
        if len(self._batches) >= IN_FLIGHT or self._tracker.pending >= MAX_PENDING:
            busy = self._batches or self._holds
            await asyncio.wait(busy, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            return
        records = await until_back(lambda: self._consumer.fetch(0.1), self._health)
        self._tracker.begin(records)
        again = self._again(records)
        for start in range(0, len(records), self._batch):
            batch = records[start : start + self._batch]
            self._batches.add(asyncio.create_task(self._take(batch, again)))

    async def _take(self, records: Sequence[Record], again: frozenset[Position]) -> None:
        unknown = await self._generation.take(records, again)
        self._health.beat()
        held = {record.position for record in unknown}
        self._tracker.done(record for record in records if record.position not in held)
        if unknown:
            self._holds.add(asyncio.create_task(self._hold(unknown, again)))

    async def _hold(self, unknown: list[Record], again: frozenset[Position]) -> None:
        records = unknown
        for wait in HOLD_WAITS_S:
            await asyncio.sleep(wait)
            unknown = await self._generation.take(unknown, again)
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


async def keep_repertoire(shelf: RepertoireStore, gate: Gate, settings: Settings) -> None:
    """Work the repertoire out anew every so often, one worker at a time, until cancelled."""
    while True:
        try:
            if await shelf.due(settings.repertoire_refresh_s):
                await work_out(shelf, gate, settings)
        except OneBarError as error:
            log.warning("repertoire_not_made", error=str(error))
        await asyncio.sleep(min(settings.repertoire_refresh_s / 4, REPERTOIRE_LOOK_S))


async def work_out(shelf: RepertoireStore, gate: Gate, settings: Settings) -> int:
    """Work the repertoire out, of what the gate lets pass anywhere; how many queries it has."""

    def may(query: str) -> bool:
        return gate.judge(query, About(), time.time(), anchors=(query,)) is None

    queries = await shelf.work_out(settings.repertoire, may)
    came, went = await shelf.put(queries)
    log.info("repertoire_made", queries=len(queries), came=came, went=went)
    return len(queries)


async def run_generator(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish what is in hand and commit. Where another version
    of the state becomes live, that is done with the one before, and gone on with it.

    Waits for Kafka and Redis as long as they are away. Raises `CheckpointError` or `RegistryError`
    where there is no model to run.
    """
    model = await asyncio.to_thread(load_model, settings)
    try:
        async with open_runtime(settings, "generator") as runtime:
            if not runtime.stop.is_set():
                await _generate(runtime.settings, runtime, model)
    finally:
        model.engine.close()


async def _generate(settings: Settings, runtime: Runtime, model: LoadedModel) -> None:
    cache = cache_beside(runtime.store, settings)
    gate = open_gate(settings)
    rules = RuleFollower(runtime.store, gate)
    shelf = repertoire_beside(runtime.store)
    repertoire = RepertoireFollower(shelf, gate)
    await until_back(rules.look, runtime.health)
    await until_back(repertoire.look, runtime.health)
    live = LiveModel(
        settings,
        runtime.store,
        cache,
        gate=gate,
        # An impression needs two prompts at most, and none in hand may meet a full queue.
        queue_size=max(settings.queue_size, 2 * MAX_PENDING),
        on_warning=partial(runtime.health.warn, "model"),
    )
    await live.open(model)
    followers = [live.follow(), rules.follow(), repertoire.follow()]
    if settings.constrain != "open":
        followers.append(keep_repertoire(shelf, gate, settings))
    following = [asyncio.create_task(each) for each in followers]
    try:
        generation = Generation(
            live,
            cache,
            runtime.producer,
            runtime.health,
            late_after_s=settings.late_after_s,
            pseudonyms=Pseudonyms(settings.user_id_key),
            k=settings.k,
        )
        while True:
            loop = GeneratorLoop(runtime.settings, generation, runtime.health, runtime.leave)
            async with watching(runtime, loop.lags):
                await loop.run()
            if not await runtime.moved():
                return
            for part in (cache, shelf):
                part.bind(runtime.store.keys)
            for follower in (rules, repertoire):
                follower.restart()
                await until_back(follower.look, runtime.health)
    finally:
        await end_tasks(*following)
        await live.close()


def main() -> int:
    """Run a generator with the environment's settings; the exit status."""
    settings = Settings()
    begin(settings, "generator")
    asyncio.run(run_generator(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
