"""Events into Kafka: the one place that produces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    CorruptRecordException,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    RecordListTooLargeError,
    UnknownError,
)

from onebar.errors import OneBarError
from onebar.process.tracing import carried, span
from onebar.process.turns import PIECE_S, turns
from onebar.settings import Settings
from stream.events import Event, encode
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.clients import start_client, stop_client
from stream.kafka.connection import client_options
from stream.kafka.topics import (
    CLIENT_ERRORS,
    KafkaUnavailableError,
    connecting_error,
    kafka_error,
)

Headers = Sequence[tuple[str, bytes]]
Message = tuple[str, bytes | None, bytes | None, Headers]
"""(topic without prefix, key, value, headers)."""

REQUEST_TIMEOUT_MS = 15_000
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""More than any topic of ours takes: the topic's own limit decides."""
IN_FLIGHT = 2000
"""Messages handed to Kafka before their acknowledgements are awaited."""


class EventRefusedError(OneBarError, ValueError):
    """Kafka takes these messages from nobody; all others of the call have arrived. `refused` says
    why, by their places in the call."""

    def __init__(self, refused: Mapping[int, str]) -> None:
        self.refused = dict(refused)
        first = next(iter(refused.values()), "")
        others = f" (and {len(refused) - 1:,} more)" if len(refused) > 1 else ""
        super().__init__(f"Kafka refused {first}{others}")


class EventTooLargeError(EventRefusedError):
    """Those that Kafka refused are longer than it takes."""


class EventProducer:
    """Sends and waits until Kafka has it: `acks=all`, in the order given for each key.

    Idempotent where the broker can (Apache Kafka; not the embedded one). Opens nothing until
    `start`. Use as an async context manager, or call `start` and `stop`.
    """

    def __init__(self, settings: Settings) -> None:
        self.bootstrap = settings.kafka_bootstrap
        self._settings = settings
        self._prefix = settings.topic_prefix
        self._idempotent = settings.idempotent_producer
        self._pseudonyms = Pseudonyms(settings.user_id_key)
        self._producer: AIOKafkaProducer | None = None
        self._broken: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, unless it is connected. Raises `KafkaUnavailableError`."""
        if self._producer is None:
            self._producer = await self._connect(self._idempotent)

    async def _connect(self, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=idempotent,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            linger_ms=2,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            await start_client(producer)
        except CLIENT_ERRORS as error:
            raise await connecting_error(self._settings, error) from error
        return producer

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_client(producer)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ping(self) -> None:
        """Raises `KafkaUnavailableError` unless a broker answers a metadata request."""
        try:
            answered = await self._started().client.force_metadata_update()
        except KafkaError as error:
            raise kafka_error(self.bootstrap, error) from error
        if not answered:
            raise KafkaUnavailableError(self.bootstrap, "no broker gave metadata")

    async def send(self, events: Sequence[Event], headers: Sequence[Headers] = ()) -> None:
        """Send events to their topics by their keys, users by their pseudonyms where the settings
        have a key for them; returns once all are acknowledged. `headers` are those of each, where
        it is not that of what is being traced.

        Raises `EventRefusedError` where Kafka refuses some, and all others have arrived;
        `KafkaUnavailableError` where some may not have arrived: send all of them again, a repeated
        event_id counts once.
        """
        with span("send to Kafka", events=len(events)):
            each = list(zip(events, headers or [carried()] * len(events), strict=True))
            await self.send_messages(await turns().over(each, lambda one: self.message(*one)))

    def message(self, event: Event, headers: Headers = ()) -> Message:
        """What `send` sends of an event."""
        named = self._pseudonyms.event(event)
        return named.topic, named.key.encode(), encode(named), headers

    async def send_raw(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        """Send one message as it is; `topic` without the prefix. Raises as `send` does."""
        await self.send_messages([(topic, key, value, headers)])

    async def send_messages(self, messages: Sequence[Message]) -> None:
        """Send messages as they are, each key's in order. Raises as `send` does."""
        refused = {
            place: why for place, message in enumerate(messages) if (why := _unsendable(message))
        }
        places = [place for place in range(len(messages)) if place not in refused]
        producer = await self._current()
        failed = await self._send_through(producer, messages, places)
        if failed:
            if self._idempotent and any(
                isinstance(error, BrokerResponseError) and not error.retriable
                for error in failed.values()
            ):
                # It numbers what it sends, and a broker that has refused one number takes no
                # later one: that producer is done.
                self._broken = producer
            self._raise_away(failed)
            refused |= await self._send_apart(messages, failed)
        if refused:
            large = all(_LARGE in why for why in refused.values())
            raise (EventTooLargeError if large else EventRefusedError)(
                dict(sorted(refused.items()))
            )

    async def _send_through(
        self, producer: AIOKafkaProducer, messages: Sequence[Message], places: Sequence[int]
    ) -> dict[int, BaseException]:
        """Send those in these places; what became of the ones that did not arrive."""
        failed: dict[int, BaseException] = {}
        for start in range(0, len(places), IN_FLIGHT):
            some = places[start : start + IN_FLIGHT]
            sent = []
            ends = perf_counter() + PIECE_S
            for place in some:
                if perf_counter() >= ends:
                    await turns().turn()
                    ends = perf_counter() + PIECE_S
                topic, key, value, headers = messages[place]
                try:
                    sent.append(
                        await producer.send(
                            self._prefix + topic, value, key=key, headers=list(headers)
                        )
                    )
                except (KafkaError, OSError, TimeoutError) as error:
                    sent.append(_failed(error))
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            failed |= {
                place: outcome
                for place, outcome in zip(some, outcomes, strict=True)
                if isinstance(outcome, BaseException)
            }
        return failed

    def _raise_away(self, failed: Mapping[int, BaseException]) -> None:
        """Raise unless Kafka has looked at each of these and refused it."""
        for error in failed.values():
            if not isinstance(error, (*_REFUSALS, OutOfOrderSequenceNumber)):
                if isinstance(error, (KafkaError, OSError, TimeoutError)):
                    raise kafka_error(self.bootstrap, error) from error
                raise error

    async def _send_apart(
        self, messages: Sequence[Message], failed: Mapping[int, BaseException]
    ) -> dict[int, str]:
        """Kafka refuses a whole batch for the sake of one of its messages: halve what failed until
        those that are refused alone are found. Why each of them is."""
        refused: dict[int, str] = {}
        producer = await self._connect(idempotent=False)
        try:
            groups = [sorted(failed)]
            while groups:
                places = groups.pop()
                again = await self._send_through(producer, messages, places)
                self._raise_away(again)
                left = sorted(again)
                if len(places) == 1:
                    refused |= {place: _why(messages[place], again[place]) for place in left}
                elif left:
                    middle = (len(left) + 1) // 2
                    groups += [half for half in (left[middle:], left[:middle]) if half]
        finally:
            await stop_client(producer)
        return refused

    async def _current(self) -> AIOKafkaProducer:
        """The producer to send with: a new one where the last can't go on."""
        if self._broken is None:
            return self._started()
        async with self._renewing:
            if self._broken is not None and self._broken is self._producer:
                old, self._producer = self._producer, await self._connect(self._idempotent)
                closing = asyncio.create_task(stop_client(old))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._broken = None
        return self._started()

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise KafkaUnavailableError(self.bootstrap, "the producer was not started")
        return self._producer


_LARGE = "is longer than"
_REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    CorruptRecordException,
    UnknownError,  # what this client makes of INVALID_RECORD: no key, on a compacted topic
)


def _unsendable(message: Message) -> str | None:
    topic, key, value, _ = message
    size = len(value or b"") + len(key or b"")
    if size + 512 > MAX_REQUEST_BYTES:
        return f"a message of {size:,} bytes for {topic}: it {_LARGE} {MAX_REQUEST_BYTES:,} bytes"
    if key is None and value is None:
        return f"a message for {topic} with neither key nor value"
    return None


def _why(message: Message, error: BaseException) -> str:
    topic, key, value, _ = message
    size = len(value or b"") + len(key or b"")
    if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
        return f"a message of {size:,} bytes for {topic}: it {_LARGE} the topic takes"
    if key is None:
        return f"a message without a key for {topic}: a compacted topic takes none"
    return f"a message of {size:,} bytes for {topic}: {error!r}"


def _failed(error: BaseException) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
