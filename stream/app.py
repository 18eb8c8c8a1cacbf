"""The Faust app: two agents that hand batches of raw records to the ingester. The only importer
of faust.

What is built on here, as read in and tried with faust-streaming 0.15.3:
- `stream.take` acknowledges its events in a `finally`, so also when the body failed or was
  cancelled; `noack_take` leaves it to us.
- what may be committed Faust finds by counting offsets one by one, and it stays behind for good
  where the log has gaps near its start (transaction markers, compaction). Records of a partition
  are acknowledged in order here, so the last one says it all.
- an agent that fails is started again with the next batch; ours ends the worker instead, before
  anything after the failure could be acknowledged.
- with more than one concurrent instance of an agent the consumer can commit past a message in
  flight (issue 606), so concurrency is 1.
- tables are not used: the state is in Redis. Faust makes their directories all the same, in the
  working directory; not here.
- a fetch waits up to 1.5 s for data, hard-coded. Apache Kafka answers as soon as there is any, the
  embedded broker only after half of that; so the wait is made short.
- events of transactions that were aborted are delivered unless Faust's own exactly-once is on;
  not here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver

from onebar.settings import Settings
from stream.groups import stream_group
from stream.records import Record


class _App(faust.App):
    def _create_directories(self) -> None:
        """None: there are no tables."""


Take = Callable[[Sequence[Record]], Awaitable[None]]
FETCH_MAX_WAIT_MS = 50


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: Any) -> int | None:
        """What may be committed of a partition: one past the last that was acknowledged, as the
        agents acknowledge each partition's records in their order and stop where one failed."""
        acked = self._acked[tp]
        if not acked:
            return None
        last: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Gaps need no book-keeping here."""


class _Transport(driver.Transport):
    Consumer = _Consumer


def build_app(settings: Settings, topics: Sequence[str], take: Take) -> faust.App:
    """The app of one worker. `take` has a batch's effect before it returns; it may be called for
    several topics at once, but for each topic one batch at a time.

    Opens nothing until started.
    """
    app = _App(
        stream_group(settings),
        broker=";".join(f"kafka://{host}" for host in settings.kafka_bootstrap.split(",")),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_request_timeout=max(40.0, 2 * settings.session_timeout_s),
        broker_commit_interval=1.0,
        broker_max_poll_records=settings.stream_batch,
        broker_commit_livelock_soft_timeout=24 * 3600.0,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=4 * settings.stream_batch,
        stream_wait_empty=False,
        stream_processing_timeout=24 * 3600.0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        autodiscover=False,
        worker_redirect_stdouts=False,
        table_standby_replicas=0,
    )
    app.transport = _Transport(app.conf.broker_consumer, app)
    for name in topics:
        _add_agent(app, settings, name, take)
    return app


async def lags(app: faust.App, prefix: str) -> dict[tuple[str, int], int]:
    """How many records of each partition of this worker are not read yet, or in hand, as far as
    it has heard. Negative where the topic ends before what was committed."""
    consumer = app.consumer
    found: dict[tuple[str, int], int] = {}
    try:
        assigned = consumer.assignment()
    except ConsumerNotStarted:
        return found
    in_hand = Counter(message.tp for message in consumer.unacked)
    for tp in assigned:
        try:
            end = consumer.highwater(tp)
            if end is None:
                continue
            # Not from what is committed: markers of transactions are passed, never committed.
            behind = end - await consumer.position(tp) + in_hand[tp]
        except (AssertionError, driver.KafkaError):  # taken away meanwhile
            continue
        committed = consumer._committed_offset.get(tp) or 0
        lag = end - committed if end < committed else max(0, behind)
        found[tp.topic[len(prefix) :], tp.partition] = lag
    return found


def _add_agent(app: faust.App, settings: Settings, name: str, take: Take) -> None:
    topic = app.topic(
        settings.topic_prefix + name,
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
    )

    async def run(stream: Any) -> AsyncIterator[None]:
        batches = stream.noack_take(settings.stream_batch, within=settings.stream_linger_s)
        async for events in batches:
            try:
                await take([_record(name, event.message) for event in events])
            except Exception as error:
                await app.crash(error)
                await asyncio.Event().wait()  # until the app, which is stopping now, cancels us
            for event in events:
                await stream.ack(event)
            yield

    app.agent(topic, name=f"{name}-agent", concurrency=1)(run)


def _record(topic: str, message: Any) -> Record:
    return Record(
        topic=topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=message.timestamp,
        key=message.key,
        value=message.value or b"",
        headers=(),
    )
