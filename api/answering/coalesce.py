"""Calls of one event-loop tick travel together: one round trip instead of many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from api.answering.deadlines import Deadlines
from feature_store.redis.client import StoreUnavailableError

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

MAX_ITEMS = 256
MAX_FLIGHTS = 4


class Coalescer(Generic[Item, Result]):
    """Joins single items into calls of `many(items) -> results`, in their order.

    What is asked for in one tick of the loop goes in one call; equal items are asked for once.
    At most `max_flights` calls are on their way: under load, and while the server stalls, what
    comes meanwhile gathers for the next. An item whose waiters have all gone is not asked for.
    A server that is away fails all of a call; another error only the item it belongs to.
    Whoever names a deadline is told by then: one timer sees to all of them.
    """

    def __init__(
        self,
        many: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int = MAX_ITEMS,
        max_flights: int = MAX_FLIGHTS,
    ) -> None:
        self._many = many
        self._max_items = max_items
        self._max_flights = max_flights
        self._waiting: dict[Item, list[asyncio.Future[Result]]] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._deadlines = Deadlines()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not self._waiting and not self._flights

    def ask(self, item: Item, deadline: float | None = None) -> asyncio.Future[Result]:
        """The result to be, for this caller alone: cancel it when it is no longer wanted.

        It fails with `TimeoutError` at `deadline` (loop time; None is never).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.setdefault(item, []).append(future)
        if deadline is not None:
            self._deadlines.watch(future, deadline)
        if not self._scheduled and len(self._flights) < self._max_flights:
            self._scheduled = True
            loop.call_soon(self._depart)
        return future

    def _depart(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._flights) < self._max_flights:
            batch: dict[Item, list[asyncio.Future[Result]]] = {}
            for item in list(self._waiting):
                wanted = [future for future in self._waiting.pop(item) if not future.done()]
                if wanted:
                    batch[item] = wanted
                    if len(batch) == self._max_items:
                        break
            if not batch:
                return
            flight = asyncio.create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._depart()

    async def _fly(self, batch: dict[Item, list[asyncio.Future[Result]]]) -> None:
        try:
            results = await self._many(list(batch))
        except StoreUnavailableError as error:
            _fail(batch, error)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch, error)
            else:
                for item, futures in batch.items():
                    await self._fly({item: futures})
        except asyncio.CancelledError:
            for futures in batch.values():
                for future in futures:
                    future.cancel()
            raise
        else:
            for futures, result in zip(batch.values(), results, strict=True):
                for future in futures:
                    if not future.done():
                        future.set_result(result)


def _fail(batch: dict[Item, list[asyncio.Future[Result]]], error: Exception) -> None:
    for futures in batch.values():
        for future in futures:
            if not future.done():
                future.set_exception(error)
