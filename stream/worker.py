"""The stream worker: behaviour in Kafka becomes anchors, history and counters in Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog

from feature_store.client import connect
from feature_store.keys import Keys
from feature_store.store import FeatureStore
from onebar.logs import configure_logging
from onebar.settings import Settings
from stream import metrics
from stream.ingest import Ingester
from stream.producer import EventProducer
from stream.retry import until_back
from stream.topics import ensure_topics

log = structlog.get_logger(__name__)


class WorkerCrashedError(RuntimeError):
    """The worker ended by itself. The cause is chained; offsets not committed come again."""


async def run_stream_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish the batch in hand and commit.

    Waits for Kafka and Redis as long as they are away. Raises `WorkerCrashedError`.
    """
    from stream.app import build_app, group

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = metrics.Health()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            metrics.serve(settings.metrics_host, settings.metrics_port, health)
        )
        store = FeatureStore(
            connect(settings.redis_url, timeout_s=settings.redis_timeout_s),
            Keys(settings.namespace, settings.generation),
            settings.policy,
        )
        stack.push_async_callback(store.close)
        producer = EventProducer(
            settings.kafka_bootstrap,
            prefix=settings.topic_prefix,
            idempotent=settings.idempotent_producer,
        )
        stack.push_async_callback(producer.stop)

        async def prepare() -> None:
            await ensure_topics(
                settings.kafka_bootstrap,
                prefix=settings.topic_prefix,
                partitions=settings.partitions,
                replication_factor=settings.replication_factor,
            )
            await producer.start()
            await store.ping()

        if not await _unless(stop, until_back(prepare, health)):
            return
        ingester = Ingester(store, producer, health, future_allowance_s=settings.future_allowance_s)
        app = build_app(settings, ingester.take)
        app.finalize()
        await app.maybe_start()
        health.started()
        log.info("stream_worker_started", group=group(settings), pid=os.getpid())
        ended = asyncio.create_task(app.wait_until_stopped())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await app.stop()
        ended.cancel()
        if app.crash_reason is not None:
            raise WorkerCrashedError(f"the worker crashed: {app.crash_reason!r}") from (
                app.crash_reason
            )
        log.info("stream_worker_stopped")


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended before the worker was told to stop; it is cancelled otherwise."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        stopped.cancel()
        await task
        return True
    task.cancel()
    await asyncio.wait((task,))
    return False


def main() -> int:
    """Run a worker with the environment's settings; the exit status."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_json)
    for noisy in ("faust", "mode", "aiokafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asyncio.run(run_stream_worker(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
