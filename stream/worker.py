"""The stream worker: behaviour in Kafka becomes anchors, history and counters in Redis."""

from __future__ import annotations

import asyncio
import os
import sys

import structlog

from onebar.logs import configure_logging
from onebar.settings import Settings
from stream.groups import stream_group
from stream.ingest import Ingester
from stream.runtime import WorkerCrashedError, open_runtime

log = structlog.get_logger(__name__)


async def run_stream_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish the batch in hand and commit.

    Waits for Kafka and Redis as long as they are away. Raises `WorkerCrashedError`.
    """
    from stream.app import build_app

    async with open_runtime(settings) as runtime:
        if runtime.stop.is_set():
            return
        ingester = Ingester(
            runtime.store,
            runtime.producer,
            runtime.health,
            future_allowance_s=settings.future_allowance_s,
        )
        app = build_app(settings, ingester.take)
        app.finalize()
        await app.maybe_start()
        runtime.health.started()
        log.info("stream_worker_started", group=stream_group(settings), pid=os.getpid())
        ended = asyncio.create_task(app.wait_until_stopped())
        stopped = asyncio.create_task(runtime.stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await app.stop()
        ended.cancel()
        if app.crash_reason is not None:
            reason = f"the stream worker crashed: {app.crash_reason!r}"
            raise WorkerCrashedError(reason) from app.crash_reason
        log.info("stream_worker_stopped")


def main() -> int:
    """Run a worker with the environment's settings; the exit status."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_json)
    asyncio.run(run_stream_worker(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
