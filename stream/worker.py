"""The stream worker: behaviour in Kafka becomes anchors, history and counters in Redis."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys

import structlog

from feature_store.store import FeatureStore
from onebar.garbage import spare_garbage_collection
from onebar.logs import configure_logging
from onebar.settings import Settings
from stream.consumer import committed_offsets, end_offsets
from stream.events import BEHAVIORS, VIDEOS
from stream.groups import stream_group
from stream.ingest import Ingester
from stream.retry import until_back
from stream.runtime import WorkerCrashedError, open_runtime
from stream.topics import partition_counts
from stream.watch import Lags, watching

log = structlog.get_logger(__name__)

EXIT_S = 10.0

INPUTS = (VIDEOS, BEHAVIORS)
"""The topics that the state is the fold of."""


class LogRewoundError(RuntimeError):
    """A topic ends before what this state has already taken in: it was made anew. Its offsets
    start again at 0, and the fences in the state would drop its events without a word."""

    def __init__(self, topic: str, partition: int, reached: int, end: int, generation: str) -> None:
        super().__init__(
            f"{topic}/{partition} ends at offset {end}, but the state of generation "
            f"{generation!r} has taken in offset {reached}: the topic was made anew. Start with "
            "another ONEBAR_GENERATION (or ONEBAR_NAMESPACE) to build the state from this log"
        )


class StateLostError(RuntimeError):
    """The consumer group has committed more than the state has taken in: Redis lost some of it."""

    def __init__(
        self, topic: str, partition: int, reached: int, committed: int, generation: str
    ) -> None:
        super().__init__(
            f"{topic}/{partition} is committed up to offset {committed - 1}, but the state of "
            f"generation {generation!r} has taken in only {reached if reached >= 0 else 'nothing'}"
            ": Redis lost what it held. Start with another ONEBAR_GENERATION to build the state "
            "from the start of the log"
        )


async def check_log(settings: Settings, store: FeatureStore) -> None:
    """Raise `LogRewoundError` where the topics are not those that the state was built from, and
    `StateLostError` where the state lacks what was committed."""
    counts = await partition_counts(settings.kafka_bootstrap)
    prefix = settings.topic_prefix
    pairs = [(name, p) for name in INPUTS for p in range(counts.get(prefix + name, 0))]
    names = [(prefix + name, p) for name, p in pairs]
    # In this order: what is committed was taken in before.
    committed = await committed_offsets(settings.kafka_bootstrap, stream_group(settings), names)
    reached = await store.reached(pairs)
    ends = await end_offsets(settings.kafka_bootstrap, [(prefix + name, p) for name, p in reached])
    for name, partition in pairs:
        at = reached.get((name, partition), -1)
        topic = prefix + name
        end = ends.get((topic, partition), at + 1)
        if end <= at:
            raise LogRewoundError(topic, partition, at, end, settings.generation)
        done = committed[(topic, partition)]
        if done > at + 1:
            raise StateLostError(topic, partition, at, done, settings.generation)


async def run_stream_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish the batch in hand and commit.

    Waits for Kafka and Redis as long as they are away. Raises `LogRewoundError`,
    `StateLostError` and `WorkerCrashedError`.
    """
    from stream.app import Failure, build_app, lags, stop

    async with open_runtime(settings) as runtime:
        if runtime.stop.is_set():
            return
        await until_back(lambda: check_log(settings, runtime.store), runtime.health)
        ingester = Ingester(
            runtime.store,
            runtime.producer,
            runtime.health,
            future_allowance_s=settings.future_allowance_s,
        )
        failure = Failure()
        app = build_app(settings, INPUTS, ingester.take, failure)
        app.finalize()
        await app.maybe_start()
        runtime.health.started()
        spare_garbage_collection()
        log.info("stream_worker_started", group=stream_group(settings), pid=os.getpid())

        checked: set[tuple[str, int]] = set()

        async def behind() -> Lags:
            found = await lags(app, settings.topic_prefix)
            # A topic made anew under us goes and comes back, or ends before what was committed.
            if not found.keys() <= checked or any(lag < 0 for lag in found.values()):
                await check_log(settings, runtime.store)
            checked.clear()
            checked.update(found)
            return {pair: max(0, lag) for pair, lag in found.items()}

        ends = [
            asyncio.create_task(end)
            for end in (app.wait_until_stopped(), failure.happened.wait(), runtime.stop.wait())
        ]
        async with watching(runtime, behind) as watch:
            await asyncio.wait((*ends, watch), return_when=asyncio.FIRST_COMPLETED)
            crash = failure.reason or app.crash_reason
            for end in ends:
                end.cancel()
            await stop(app, crash)
        if crash is not None:
            raise WorkerCrashedError(f"the stream worker crashed: {crash!r}") from crash
        log.info("stream_worker_stopped")


def main() -> int:
    """Run a worker with the environment's settings; the exit status."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_json)

    async def run() -> None:
        try:
            await run_stream_worker(settings)
        finally:  # a task that will not be cancelled must not keep the process
            faulthandler.dump_traceback_later(EXIT_S, exit=True)

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
