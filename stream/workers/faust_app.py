"""The Faust app: two agents that hand batches of raw records to the ingester. The only importer
of faust.

What is built on here, as read in and tried with faust-streaming 0.15.3:
- for every message Faust starts two tasks and wakes as many queues, which costs about as much as
  all that is done with an event here. So a message is not a record but what was fetched of a
  partition: the records of it, up to `stream_batch`.
- where the buffers of all partitions are full it looks again after a second; a partition is never
  taken out here, the delivery waits instead.
- `stream.take` acknowledges its events in a `finally`, so also when the body failed or was
  cancelled; and it waits for a batch to fill. A stream with `noack` does neither.
- what may be committed Faust finds by counting offsets one by one, and it stays behind for good
  where the log has gaps near its start (transaction markers, compaction). Records of a partition
  are acknowledged in order here, so the last one says it all.
- an agent that fails is started again with the next batch, and so may be those of an app that
  has crashed. What the failed batch held would then be passed over for good, so after a failure
  nothing is handed on any more, nor acknowledged of what stands behind it: the worker ends.
- with more than one concurrent instance of an agent the consumer can commit past a message in
  flight (issue 606), so concurrency is 1.
- tables are not used: the state is in Redis. Faust makes their directories all the same, in the
  working directory; not here.
- a fetch waits up to 1.5 s for data, hard-coded; here as long as the settings say.
- in a rebalance it throws away what it has fetched and begins again at what is committed; where
  nothing was committed yet, aiokafka stays where it was, and what was thrown away would never
  come: here it begins at the start.
- events of transactions that were aborted are delivered unless Faust's own exactly-once is on;
  not here.
- the thread of the consumer is awaited without a limit while the event loop stands still, and
  stopping one that has ended by itself raises; a crashed worker could hang instead of ending. Here
  it is given up after a while: what it had to commit it has committed by then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import faust
import structlog
from faust.auth import OAuthCredentials
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from mode.threads import WorkerThread

from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from stream.kafka.connection import security_options
from stream.kafka.consumer import METADATA_MAX_AGE_MS
from stream.kafka.groups import stream_group
from stream.kafka.records import Record

log = structlog.get_logger(__name__)


Take = Callable[[Sequence[Record]], Awaitable[None]]
OnAssigned = Callable[[Iterable[tuple[str, int]]], None]


class _App(faust.App):
    fetch_max_wait_ms: int
    on_assigned: OnAssigned

    async def _on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        self.on_assigned((tp.topic, tp.partition) for tp in assigned)
        await super()._on_partitions_assigned(assigned, generation_id)

    def _create_directories(self) -> None:
        """None: there are no tables."""


BUFFERED = 4
"""Batches of a topic that may wait for those in hand."""


IN_HAND = 3
"""Batches of a topic that are handed on before the first of them is done: while Redis has one, the
next is made ready, and what was done with the one before is noted."""

THREAD_END_S = 2.0
STOP_WITHIN_S = 5.0
"""How long an app may take to stop: with Kafka away it would try for a minute to commit what then
comes again, and is fenced; one that has crashed may be unable to."""


class _Thread(WorkerThread):
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    def stop(self) -> None:
        if self.is_stopped.wait(THREAD_END_S):
            self.join(THREAD_END_S)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    Worker = _Thread

    def _stopped_set(self) -> None:
        with suppress(RuntimeError):  # its event loop is closed: it has ended already
            super()._stopped_set()

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(seek_to_committed, self._ensure_consumer())

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.fetch_max_wait_ms
        consumer._isolation_level = "read_committed"
        return consumer


async def seek_to_committed(consumer: Any) -> dict[Any, int | None]:
    """Have it read on from what is committed of each partition: where nothing is, from the start,
    which aiokafka leaves out. What was committed."""
    committed: dict[Any, int | None] = await consumer.seek_to_committed()
    bare = [partition for partition, offset in committed.items() if not offset]
    if bare:
        await consumer.seek_to_beginning(*bare)
    return committed


class _Partitions:
    """The order in which what was fetched is handled: the records of a partition together."""

    def iterate(self, fetched: Any) -> Any:
        return iter(fetched.items())


class _Consumer(driver.Consumer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scheduler = _Partitions()

    def _to_message(self, tp: Any, records: Any) -> Any:
        """A message that stands for the records fetched of a partition, at the last's offset."""
        message = super()._to_message(tp, records[-1])
        message.records = records
        return message

    async def verify_all_partitions_active(self) -> None:
        """Nothing: who gets on or does not is watched by `stream.workers.health`. Faust's own look
        ends the worker where a partition has no position yet, as while a broker is away."""

    def on_buffer_full(self, tp: Any) -> None:
        """Nothing: who delivers to a full buffer waits until there is room."""

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


class Failure:
    """Whether a batch was not taken to its end, and why. Made within the event loop."""

    def __init__(self) -> None:
        self.reason: BaseException | None = None
        self.happened = asyncio.Event()

    def note(self, reason: BaseException) -> None:
        """The first one counts."""
        if self.reason is None:
            self.reason = reason
            self.happened.set()


def _credentials(settings: Settings) -> Any:
    """How every other client connects, as Faust has it; None for plain text."""
    options = security_options(settings)
    context = options.get("ssl_context")
    if not options:
        return None
    if "sasl_mechanism" not in options:
        return faust.SSLCredentials(context)
    if "sasl_oauth_token_provider" in options:
        return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    return faust.SASLCredentials(
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        mechanism=options["sasl_mechanism"],
        ssl_context=context,
    )


def build_app(
    settings: Settings,
    topics: Sequence[str],
    take: Take,
    failure: Failure,
    on_assigned: OnAssigned = lambda partitions: None,
) -> faust.App:
    """The app of one worker. `take` has a batch's effect before it returns; it is called for
    several topics at once, and for each with the next batch before it is done with the one before:
    it is to have their effects in the order of the calls, and none of a partition whose batch
    before failed. Where it raises or is cancelled, `failure` says so and it is not called again.
    `on_assigned` is told the (topic, partition)s that are this worker's after a rebalance, before
    it is given anything of them.

    Opens nothing until started.
    """
    app = _App(
        stream_group(settings),
        broker=";".join(f"kafka://{host}" for host in settings.kafka_bootstrap.split(",")),
        broker_credentials=_credentials(settings),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_request_timeout=max(40.0, 2 * settings.session_timeout_s),
        broker_commit_interval=1.0,
        broker_max_poll_records=settings.stream_batch,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        stream_buffer_maxsize=BUFFERED,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        autodiscover=False,
        worker_redirect_stdouts=False,
        table_standby_replicas=0,
    )
    app.fetch_max_wait_ms = settings.fetch_max_wait_ms
    prefix = len(settings.topic_prefix)
    app.on_assigned = lambda given: on_assigned((topic[prefix:], p) for topic, p in given)
    app.transport = _Transport(app.conf.broker_consumer, app)
    for name in topics:
        _add_agent(app, settings, name, take, failure)
    return app


async def stop(app: faust.App, crash: BaseException | None) -> None:
    """Stop the app. One that has crashed, or that has lost Kafka, may be unable to; its offsets
    come again all the same, so it is given up after a while."""
    stopping = asyncio.create_task(app.stop())
    await asyncio.wait((stopping,), timeout=STOP_WITHIN_S)
    if not stopping.done():
        log.error("stream_worker_stop_given_up", after_s=STOP_WITHIN_S)
        stopping.cancel()
    elif error := stopping.exception():
        if crash is None:
            raise error
        log.warning("stream_worker_stop_failed", error=repr(error))  # the crash says why


async def lags(app: faust.App, prefix: str) -> dict[tuple[str, int], int]:
    """How many records of each partition of this worker are not read yet, or in hand, as far as
    it has heard. Negative where the topic ends before what was committed."""
    consumer = app.consumer
    found: dict[tuple[str, int], int] = {}
    try:
        assigned = consumer.assignment()
    except ConsumerNotStarted:
        return found
    in_hand: Counter[Any] = Counter()
    for message in consumer.unacked:
        in_hand[message.tp] += len(message.records)
    for tp in assigned:
        try:
            end = consumer.highwater(tp)
            if end is None:
                continue
            # Not from what is committed: markers of transactions are passed, never committed.
            behind = end - await consumer.position(tp) + in_hand[tp]
        except (AssertionError, driver.KafkaError):  # taken away meanwhile
            continue
        except RuntimeError:
            if app.should_stop:  # the consumer's thread has ended, and its event loop
                return found
            raise
        committed = consumer._committed_offset.get(tp) or 0
        lag = end - committed if end < committed else max(0, behind)
        found[tp.topic[len(prefix) :], tp.partition] = lag
    return found


def _add_agent(app: faust.App, settings: Settings, name: str, take: Take, failure: Failure) -> None:
    topic = app.topic(
        settings.topic_prefix + name,
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
    )

    async def run(stream: Any) -> AsyncIterator[None]:
        batches = stream.noack()
        room = asyncio.Semaphore(IN_HAND)

        async def whole(event: Any) -> None:
            try:
                # One before it may have failed, with nobody behind it yet.
                if not failure.happened.is_set():
                    await take([_record(name, record) for record in event.message.records])
                    await batches.ack(event)
            except Exception as error:
                log.error("batch_failed", topic=name, error=repr(error))
                failure.note(error)
            except asyncio.CancelledError as error:  # half taken: it must not be passed over
                failure.note(error)
                raise
            finally:
                room.release()

        in_hand: set[asyncio.Task[None]] = set()
        try:
            await room.acquire()
            async for event in batches.events():
                if failure.happened.is_set():
                    break
                task = asyncio.create_task(whole(event))
                in_hand.add(task)
                task.add_done_callback(in_hand.discard)
                yield
                await room.acquire()
            await asyncio.Event().wait()  # until the app, which is to stop now, cancels us
        finally:
            await end_tasks(*in_hand)

    app.agent(topic, name=f"{name}-agent", concurrency=1)(run)


def _record(topic: str, record: Any) -> Record:
    return Record(
        topic=topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp / 1000,
        key=record.key,
        value=record.value or b"",
        headers=record.headers,
        null=record.value is None,
    )
