"""How a client of Kafka begins and ends: whole, whatever cuts that off.

As read in and tried with aiokafka 0.14: a client whose start is cancelled while it waits for its
first answer forgets the connection that it has asked on, which stays open and is complained of
when it is collected. One whose stop is cancelled has neither its tasks nor its connections ended,
ignores another stop, and may swallow the cancellation: a time-out about it does nothing then.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 4.0
"""How long a client may take to end: with Kafka away it would wait much longer for an answer."""

Client = TypeVar("Client")
_stopping: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def running(client: Client) -> AsyncIterator[Client]:
    """A client of aiokafka, started and, however the block ends, stopped."""
    await start_client(client)
    try:
        yield client
    finally:
        await stop_client(client)


async def start_client(client: Any) -> None:
    """Start it. Where that fails, or is cancelled, nothing of it stays."""
    try:
        await client.start()
    except BaseException as error:
        try:
            await stop_client(client)
        finally:
            _close_forgotten(error)
        raise


async def stop_client(client: Any, within_s: float = STOP_WITHIN_S) -> None:
    """Stop it. After `within_s` seconds it is given up. Whoever waits may be cancelled: it is
    stopped all the same."""
    ending = asyncio.create_task(_stop(client, within_s))
    _stopping.add(ending)
    ending.add_done_callback(_stopping.discard)
    await asyncio.shield(ending)


async def _stop(client: Any, within_s: float) -> None:
    await asyncio.sleep(0)  # one whose tasks have not begun yet can't be stopped
    stop: Callable[[], Awaitable[None]] = (
        client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
    )
    # In a task of its own: what it has under way with a broker that is gone ends as cancelled.
    stopping = asyncio.ensure_future(stop())
    await asyncio.wait((stopping,), timeout=within_s)
    if not stopping.done():
        stopping.cancel()
    elif not stopping.cancelled() and (error := stopping.exception()) is not None:
        log.warning("kafka_client_stop_failed", error=repr(error))


def _close_forgotten(error: BaseException) -> None:
    """Close what a start that failed had open and told nobody of: it is where it was left."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values()):
            if isinstance(value, AIOKafkaConnection):
                value.close()
