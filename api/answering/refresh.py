"""Answers that grew stale are served, and generated anew behind the request's back."""

from __future__ import annotations

import asyncio

import structlog

from api.answering.model import Model
from api.http.metrics import REFRESHES
from feature_store.redis.client import StoreUnavailableError
from onebar.process.tasks import end_tasks
from onebar.records import Pair

log = structlog.get_logger(__name__)

MAX_REFRESHES = 32
BUDGET_S = 5.0


class Refresher:
    """Renews pairs: each once at a time, and only so many side by side; the rest wait for the
    next one who asks for them.
    """

    def __init__(self, model: Model, *, most: int = MAX_REFRESHES) -> None:
        self._model = model
        self._most = most
        self._tasks: dict[Pair, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def want(self, pair: Pair) -> None:
        """Have a pair generated anew, unless that is under way or there is no room. At once."""
        if pair in self._tasks or self._model.recommender is None:
            return
        if len(self._tasks) >= self._most:
            REFRESHES.labels("no_room").inc()
            return
        task = asyncio.create_task(self._refresh(pair))
        self._tasks[pair] = task
        task.add_done_callback(lambda _: self._tasks.pop(pair, None))

    async def _refresh(self, pair: Pair) -> None:
        recommender = self._model.recommender
        if recommender is None:
            return
        deadline = asyncio.get_running_loop().time() + BUDGET_S
        try:
            [outcome] = await recommender.recommend([pair], deadline=deadline)
        except StoreUnavailableError as error:
            outcome = error
        except Exception as error:
            log.exception("refresh_failed", video_id=pair[0])
            outcome = error
        REFRESHES.labels("failed" if isinstance(outcome, Exception) else "done").inc()

    async def drain(self) -> None:
        """Wait for everything under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def stop(self) -> None:
        """Give up what is under way."""
        await end_tasks(*self._tasks.values())
