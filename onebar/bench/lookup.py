"""What a running API answers: rate, latency, and where the answers came from."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from onebar.bench.caller import Caller

Told = Callable[[float, str], None]


class LookupFigures(Struct, frozen=True):
    """Answers a second, and their latency in milliseconds.

    At a fixed rate a latency counts from when the request was due, so that a server which falls
    behind can't hide it (coordinated omission); else from when it was sent.
    """

    answers: int
    per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    sources: dict[str, int]


async def measure_lookups(
    url: str,
    paths: Sequence[str],
    *,
    seconds: float,
    callers: int = 16,
    rate: float | None = None,
    headers: dict[str, str] | None = None,
    told: Told = lambda fraction, text: None,
) -> LookupFigures:
    """Ask for the paths in turn, over `callers` connections, for so long.

    With `rate` requests are due at that rate, whatever the answers take; else each caller asks as
    soon as it has its answer. Raises `OSError`, and `CallError` for an answer that is no 200.
    """
    loop = asyncio.get_running_loop()
    took: list[float] = []
    sources: Counter[str] = Counter()
    due: deque[float] = deque()
    arrived = asyncio.Semaphore(0)
    began = loop.time()
    until = began + seconds
    asked = 0

    async def next_due() -> float | None:
        """When the next request is due, in loop time; None at the end."""
        if rate is None:
            now = loop.time()
            return now if now < until else None
        await arrived.acquire()
        return due.popleft() if due else None

    async def call(caller: Caller, requests: Sequence[bytes]) -> None:
        nonlocal asked
        while (moment := await next_due()) is not None:
            request = requests[asked % len(requests)]
            asked += 1
            answer: Any = await caller.ask(request)
            took.append(loop.time() - moment)
            sources[answer.get("source", "none")] += 1
            told(min(1.0, (loop.time() - began) / seconds), f"{len(took):,} answers")

    async def pace(rate: float) -> None:
        for n in range(max(1, round(rate * seconds))):
            moment = began + n / rate
            await asyncio.sleep(max(0.0, moment - loop.time()))
            due.append(moment)
            arrived.release()
        for _ in range(callers):
            arrived.release()

    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(Caller(url, headers)) for _ in range(callers)
        ]
        requests = [connections[0].get(path) for path in paths]
        began = loop.time()
        until = began + seconds
        try:
            async with asyncio.TaskGroup() as group:
                for caller in connections:
                    group.create_task(call(caller, requests))
                if rate is not None:
                    group.create_task(pace(rate))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
    return _figures(took, loop.time() - began, sources)


def _figures(took: Sequence[float], seconds: float, sources: Counter[str]) -> LookupFigures:
    import numpy as np

    p50, p99, longest = 1000 * np.percentile(took, [50, 99, 100])
    return LookupFigures(
        answers=len(took),
        per_s=round(len(took) / seconds, 1),
        p50_ms=round(float(p50), 2),
        p99_ms=round(float(p99), 2),
        longest_ms=round(float(longest), 2),
        sources=dict(sources.most_common()),
    )
