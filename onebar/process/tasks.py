"""The end of asyncio tasks."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_AFTER_S = 1.0


async def end_tasks(*tasks: asyncio.Task[Any], again_after_s: float = AGAIN_AFTER_S) -> None:
    """Cancel tasks and wait until they have ended, however they end.

    A task that has not after `again_after_s` is cancelled again, for a cancellation can get lost:
    `asyncio.wait_for` before Python 3.12 drops one that meets the answer it waits for (CPython
    issue 86296), and the clients of Kafka and Redis use it.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_after_s)
