"""Events into Kafka: the one place that produces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import Event, encode
from stream.kafka.topics import KafkaUnavailableError

Headers = Sequence[tuple[str, bytes]]
Message = tuple[str, bytes | None, bytes, Headers]
"""(topic without prefix, key, value, headers)."""

REQUEST_TIMEOUT_MS = 15_000
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""More than any topic of ours takes: the topic's own limit decides."""
IN_FLIGHT = 2000
"""Messages handed to Kafka before their acknowledgements are awaited."""


class EventTooLargeError(OneBarError, ValueError):
    """A message is longer than Kafka takes. Nothing of it was sent."""


class EventProducer:
    """Sends and waits until Kafka has it: `acks=all`, in the order given for each key.

    Idempotent where the broker can (Apache Kafka; not the embedded one). Opens nothing until
    `start`. Use as an async context manager, or call `start` and `stop`.
    """

    def __init__(self, bootstrap: str, *, prefix: str = "", idempotent: bool = True) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._idempotent = idempotent
        self._producer: AIOKafkaProducer | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The producer that these settings describe."""
        return cls(
            settings.kafka_bootstrap,
            prefix=settings.topic_prefix,
            idempotent=settings.idempotent_producer,
        )

    async def start(self) -> None:
        """Connect. Raises `KafkaUnavailableError`."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=self._idempotent,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            linger_ms=2,
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await producer.stop()
            raise KafkaUnavailableError(self._bootstrap, error) from error
        self._producer = producer

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

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
            raise KafkaUnavailableError(self._bootstrap, error) from error
        if not answered:
            raise KafkaUnavailableError(self._bootstrap, "no broker gave metadata")

    async def send(self, events: Sequence[Event]) -> None:
        """Send events to their topics by their keys; returns once all are acknowledged.

        Raises `EventTooLargeError` before anything is sent, `KafkaUnavailableError` where some
        may not have arrived: send all of them again, a repeated event_id counts once.
        """
        await self.send_messages(
            [(event.topic, event.key.encode(), encode(event), ()) for event in events]
        )

    async def send_raw(
        self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()
    ) -> None:
        """Send one message as it is; `topic` without the prefix. Raises as `send` does."""
        await self.send_messages([(topic, key, value, headers)])

    async def send_messages(self, messages: Sequence[Message]) -> None:
        """Send messages as they are, each key's in order. Raises as `send` does."""
        producer = self._started()
        for topic, key, value, _ in messages:
            if len(value) + len(key or b"") + 512 > MAX_REQUEST_BYTES:
                raise EventTooLargeError(
                    f"a message of {len(value):,} bytes for {topic}: "
                    f"at most {MAX_REQUEST_BYTES:,} are sent"
                )
        try:
            for start in range(0, len(messages), IN_FLIGHT):
                sent = [
                    await producer.send(self._prefix + topic, value, key=key, headers=list(headers))
                    for topic, key, value, headers in messages[start : start + IN_FLIGHT]
                ]
                outcomes = await asyncio.gather(*sent, return_exceptions=True)
                for outcome in outcomes:
                    if isinstance(outcome, BaseException):
                        raise outcome
        except MessageSizeTooLargeError as error:
            raise EventTooLargeError(str(error)) from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaUnavailableError(self._bootstrap, error) from error

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise KafkaUnavailableError(self._bootstrap, "the producer was not started")
        return self._producer
