"""What a worker could not process: set aside with its reason, the original byte for byte.

A dead letter is a message on `onebar.dead-letters` whose value is the original's, and whose headers
say where it came from and why it is here. `stream.logs.dead_letters` reads them and sends them
back."""

from __future__ import annotations

import time

import structlog

from onebar.errors import OneBarError
from stream.events import DEAD_LETTERS
from stream.kafka.producer import EventProducer, EventRefusedError, Headers, Message
from stream.kafka.records import Record
from stream.kafka.topics import KafkaUnfitError
from stream.workers.metrics import DEAD_LETTERS as DEAD_LETTERS_COUNT
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back

log = structlog.get_logger(__name__)

MAX_REASON_BYTES = 1000
CUT_BYTES = 64 * 1024
"""What is kept of a value too long for the dead-letter topic: any broker takes this much."""

THEIRS = "header."
"""Put before the name of a header that the original had."""
TRIES = "onebar-tries"
"""Header of a message that was sent back: how often by now. Its next letter has it too."""


class FutureEventError(OneBarError, ValueError):
    """An event's `ts` lies further beyond its Kafka timestamp than allowed."""

    def __init__(self, ts: float, timestamp: float, allowance_s: float) -> None:
        super().__init__(
            f"ts {ts!r} is {ts - timestamp:.0f} s after the message's Kafka timestamp; "
            f"at most {allowance_s:g} s are allowed: is the sender's clock right?"
        )


async def set_aside(producer: EventProducer, letters: list[Message], health: WorkerHealth) -> None:
    """Send dead letters, however long Kafka is away. Those that the topic refuses, as when a feed's
    own topic takes longer messages than the dead letters', are cut, and a header `cut_from` tells
    how long they were: an oversized one stops nobody."""
    try:
        await until_back(lambda: producer.send_messages(letters), health)
    except EventRefusedError as error:
        log.error("dead_letter_cut", error=str(error))
        shorter = [_cut(letters[place]) for place in sorted(error.refused)]
        await until_back(lambda: _insist(producer, shorter), health)


async def _insist(producer: EventProducer, letters: list[Message]) -> None:
    try:
        await producer.send_messages(letters)
    except EventRefusedError as error:  # nothing is wrong with them any more: the topic is unfit
        raise KafkaUnfitError(producer.bootstrap, error) from error


def _cut(letter: Message) -> Message:
    topic, key, value, headers = letter
    if value is None or len(value) <= CUT_BYTES:
        return topic, key or b"-", value, headers
    cut_from = ("cut_from", str(len(value)).encode())
    return topic, key or b"-", value[:CUT_BYTES], (*headers, cut_from)


def dead_letter(record: Record, error: Exception, mapping: str = "") -> Message:
    """The message to send to the dead-letter topic for a record that failed. With `mapping` it is
    of somebody else's topic, and that mapping could make no event of it; what it may have read in
    the record's headers is kept. How often it was sent back before it failed again is told."""
    name = type(error).__name__
    DEAD_LETTERS_COUNT.labels(name).inc()
    reason = f"{name}: {error}".encode("utf-8", "replace")[:MAX_REASON_BYTES]
    headers: Headers = (
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("timestamp", repr(record.timestamp).encode()),
        ("reason", reason),
        ("failed_at", repr(time.time()).encode()),
        *((("null", b"value"),) if record.null else ()),
        *((header, value) for header, value in record.headers if header == TRIES),
    )
    if mapping:
        theirs = ((f"{THEIRS}{header}", value) for header, value in record.headers)
        headers = (*headers, ("mapping", mapping.encode()), *theirs)
    return DEAD_LETTERS, record.key, record.value, headers
