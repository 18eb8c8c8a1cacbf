"""The stream worker: behaviour in Kafka becomes anchors, history and counters in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import sys

import structlog

from feature_store.redis.client import StoreUnavailableError
from onebar.process.garbage import spare_garbage_collection
from onebar.process.start import begin
from onebar.settings import Settings
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.groups import stream_group
from stream.workers.continuity import (
    INPUTS,
    LogRewoundError,
    Reached,
    StateLostError,
    check_continuity,
)
from stream.workers.health import Lags, watching
from stream.workers.ingest import Ingester
from stream.workers.retry import until_back
from stream.workers.runtime import Runtime, WorkerCrashedError, open_runtime, unless

log = structlog.get_logger(__name__)

EXIT_S = 4.0


async def run_stream_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then commit what was taken in. A batch in hand comes again, and
    what it has had of its effect is fenced. Where another version of the state becomes live, the
    worker ends so with the one before, and goes on with that.

    Waits for Kafka and Redis as long as they are away. Raises `LogRewoundError`,
    `StateLostError` and `WorkerCrashedError`.
    """
    async with open_runtime(settings, "stream") as runtime:
        try:
            going_on = not runtime.stop.is_set()
            while going_on:
                await _work(runtime.settings, runtime)
                going_on = await runtime.moved()
        except StateLostError as error:
            with contextlib.suppress(StoreUnavailableError):  # whoever reads it is to know as well
                await runtime.store.note_lost(str(error))
            raise


async def _work(settings: Settings, runtime: Runtime) -> None:
    from stream.workers.faust_app import Failure, build_app, lags, stop

    reached: Reached = {}

    async def whole() -> None:
        nonlocal reached
        reached = await until_back(
            lambda: check_continuity(settings, runtime.store), runtime.health
        )
        await until_back(lambda: runtime.store.note_lost(None), runtime.health)

    if not await unless(runtime.leave, whole()):
        return  # told to end while it waited
    ingester = Ingester(
        runtime.store,
        runtime.producer,
        runtime.health,
        reached=reached,
        verify=lambda partitions: check_continuity(settings, runtime.store, partitions),
        future_allowance_s=settings.future_allowance_s,
        pseudonyms=Pseudonyms(settings.user_id_key),
    )
    failure = Failure()
    app = build_app(settings, INPUTS, ingester.take, failure, ingester.assigned)
    app.finalize()
    if not await unless(runtime.leave, app.maybe_start()):  # it may wait for Kafka, without end
        await stop(app, None)
        return
    runtime.health.started()
    spare_garbage_collection()
    log.info("stream_worker_started", group=stream_group(settings), pid=os.getpid())

    async def behind() -> Lags:
        found = await lags(app, settings.topic_prefix)
        # A topic made anew under us ends before what was committed.
        if any(lag < 0 for lag in found.values()):
            await check_continuity(settings, runtime.store)
        await ingester.check()
        return {pair: max(0, lag) for pair, lag in found.items()}

    ends = [
        asyncio.create_task(end)
        for end in (app.wait_until_stopped(), failure.happened.wait(), runtime.leave.wait())
    ]
    async with watching(runtime, behind) as watch:
        await asyncio.wait((*ends, watch), return_when=asyncio.FIRST_COMPLETED)
        crash = failure.reason or app.crash_reason
        for end in ends:
            end.cancel()
        await stop(app, crash)
    if isinstance(crash, (StateLostError, LogRewoundError)):
        raise crash
    if crash is not None:
        raise WorkerCrashedError(f"the stream worker crashed: {crash!r}") from crash
    log.info("stream_worker_stopped", group=stream_group(settings))


def main() -> int:
    """Run a worker with the environment's settings; the exit status."""
    settings = Settings()
    begin(settings, "stream")

    async def run() -> None:
        try:
            await run_stream_worker(settings)
        finally:  # a task that will not be cancelled must not keep the process
            faulthandler.dump_traceback_later(EXIT_S, exit=True)

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
