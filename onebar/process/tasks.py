"""The end of asyncio tasks, and of a process, whatever hangs in it."""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from typing import Any

AGAIN_AFTER_S = 1.0
END_S = 8.0
"""How long a process has to end by itself: what starts it may wait ten seconds before it kills."""


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


def end_soon(seconds: float = END_S) -> None:
    """Call when the process was told to end. It has `seconds` to do so; then it is ended with
    status 1, and standard error tells where each of its threads was. What had an effect by then has
    it, and what had not comes again.

    A model that never comes back can't be cancelled, and Python waits for its thread. This does not
    wait for Python either: it holds where the interpreter's lock is never given back.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
