"""A feed that does not end: a log's users watch, search and click again, now."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from itertools import count, islice

import msgspec

from stream.events import ADMIN_EVENTS, Event, Video
from stream.kafka.producer import EventProducer
from stream.logs.files import Log, LogError

PAUSE_S = 0.2


def again(log: Log) -> Iterator[Event]:
    """The log's impressions and behaviours, over and over, as new events of this moment.

    Videos are there already, and nobody is deleted. Raises `LogError` where there is none of
    them in the log.
    """
    run = uuid.uuid4().hex[:8]
    for lap in count(1):
        seen = False
        for entry in log.entries():
            event = entry.event
            if event is not None and not isinstance(event, (Video, *ADMIN_EVENTS)):
                seen = True
                yield msgspec.structs.replace(
                    event, event_id=f"{run}-{lap}-{entry.number}", ts=time.time()
                )
        if not seen:
            raise LogError(f"{log.path} holds no impressions and no behaviours to go on with")


async def keep_feeding(log: Log, producer: EventProducer, rate: float) -> None:
    """Send `rate` of the log's events a second, over and over, until cancelled."""
    await feed(again(log), producer, rate)


async def feed(events: Iterator[Event], producer: EventProducer, rate: float) -> None:
    """Send `rate` events a second, as of the moment, until there are no more."""
    due, last = 0.0, time.monotonic()
    while True:
        now = time.monotonic()
        due, last = min(due + (now - last) * rate, 10 * rate), now
        wanted = int(due)
        batch = [msgspec.structs.replace(e, ts=time.time()) for e in islice(events, wanted)]
        due -= len(batch)
        if batch:
            await producer.send(batch)
        if len(batch) < wanted:
            return
        await asyncio.sleep(PAUSE_S)
