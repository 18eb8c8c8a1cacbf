"""A steady stream of behaviour for benchmarks: a simulated log over and over, as if it were now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec import structs

from stream.events import BEHAVIORS, Event
from stream.kafka.producer import EventProducer

GROUP = 10
"""Fewest events sent together; what has become due meanwhile goes with them."""
MOST = 500


class Load:
    """Behaviour of `events` to Kafka, each time round under new ids and with the present time."""

    def __init__(self, events: Sequence[Event], producer: EventProducer, rate: float) -> None:
        """`rate` events a second are aimed at."""
        self.sent = 0
        self._behaviors = [event for event in events if event.topic == BEHAVIORS]
        self._producer = producer
        self._rate = rate
        self._began = 0.0

    @property
    def rate(self) -> float:
        """Events a second that were really sent and acknowledged so far."""
        return self.sent / (time.perf_counter() - self._began)

    async def run(self) -> None:
        """Until cancelled."""
        self._began = time.perf_counter()
        while True:
            due = int((time.perf_counter() - self._began) * self._rate) - self.sent
            if due < GROUP:
                await asyncio.sleep((GROUP - due) / self._rate)
                continue
            now = time.time()
            group = [
                structs.replace(
                    self._behaviors[(self.sent + n) % len(self._behaviors)],
                    event_id=f"load-{self.sent + n}",
                    ts=now,
                )
                for n in range(min(due, MOST))
            ]
            await self._producer.send(group)
            self.sent += len(group)
