"""What was set aside (`stream.workers.dead_letters`): listed, mended and sent back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import structlog
from msgspec import Struct

from onebar.settings import Settings
from stream.events import DEAD_LETTERS
from stream.kafka.consumer import RecordConsumer, end_offsets
from stream.kafka.producer import EventProducer, Message
from stream.kafka.records import Record, next_offsets
from stream.kafka.topics import partition_counts

log = structlog.get_logger(__name__)

REPLAY_GROUP = "dead-letters-replay"


class DeadLetter(Struct, frozen=True):
    """A message set aside. `topic`, `partition`, `offset` and `timestamp` are the original's
    (`topic` without the prefix, times in UTC epoch seconds); `reason` begins with the error's
    name. `number` is (partition, offset) among the dead letters."""

    value: bytes
    key: bytes | None
    topic: str
    partition: int
    offset: int
    timestamp: float
    reason: str
    failed_at: float
    number: tuple[int, int]


def _read(record: Record) -> DeadLetter:
    """Headers that are missing or broken read as unknown: a letter is never lost to its label."""
    headers = dict(record.headers)

    def text(name: str) -> str:
        return headers.get(name, b"").decode("utf-8", "replace")

    def number(name: str) -> float:
        try:
            return float(text(name))
        except ValueError:
            return -1.0

    return DeadLetter(
        value=record.value,
        key=record.key,
        topic=text("topic"),
        partition=int(number("partition")),
        offset=int(number("offset")),
        timestamp=number("timestamp"),
        reason=text("reason"),
        failed_at=number("failed_at"),
        number=(record.partition, record.offset),
    )


async def _partitions(settings: Settings) -> list[tuple[str, int]]:
    name = settings.topic_prefix + DEAD_LETTERS
    count = (await partition_counts(settings.kafka_bootstrap)).get(name, 0)
    return [(name, partition) for partition in range(count)]


async def _records(
    settings: Settings, group: str | None
) -> AsyncIterator[tuple[RecordConsumer, list[Record]]]:
    """Batches from where the group stands up to the end as it was when asked."""
    ends = await end_offsets(settings.kafka_bootstrap, await _partitions(settings))
    left = {partition for (_, partition), end in ends.items() if end > 0}
    if not left:
        return
    consumer = RecordConsumer(settings, [DEAD_LETTERS], group=group, max_records=500, alone=True)
    await consumer.start()
    try:
        name = settings.topic_prefix + DEAD_LETTERS
        while left:
            records = await consumer.fetch(0.5)
            wanted = [r for r in records if r.offset < ends[(name, r.partition)]]
            if wanted:
                yield consumer, wanted
            for partition in list(left):
                if await consumer.position(DEAD_LETTERS, partition) >= ends[(name, partition)]:
                    left.discard(partition)
    finally:
        await consumer.stop()


async def read_dead_letters(settings: Settings, limit: int | None = None) -> list[DeadLetter]:
    """The dead letters there are, oldest failure first, the newest `limit` of them.

    Reads beside every other reader and moves nobody's offsets. Raises `KafkaUnavailableError`.
    """
    letters = [_read(record) async for _, records in _records(settings, None) for record in records]
    letters.sort(key=lambda letter: (letter.failed_at, letter.number))
    return letters if limit is None else letters[-limit:] if limit else []


async def replay_dead_letters(
    settings: Settings, mend: Callable[[bytes], bytes] | None = None
) -> int:
    """Send the dead letters not replayed before back to where they came from; how many.

    `mend` turns a value into a better one; one that still fails comes back as a new dead letter,
    which the next replay takes. What was sent is noted, so a second replay sends nothing twice
    unless the first was cut off in between. Raises `KafkaUnavailableError`.
    """
    sent = 0
    group = f"{settings.consumer_group}-{REPLAY_GROUP}"
    async with EventProducer.of(settings) as producer:
        async for consumer, records in _records(settings, group):
            letters = [_read(record) for record in records]
            messages: list[Message] = [
                (letter.topic, letter.key, mend(letter.value) if mend else letter.value, ())
                for letter in letters
                if letter.topic
            ]
            await producer.send_messages(messages)
            await consumer.commit(next_offsets(records))
            sent += len(messages)
    log.info("dead_letters_replayed", sent=sent)
    return sent
