"""What was set aside (`stream.workers.dead_letters`): listed, mended, sent back, dropped.

A letter stays in its topic until Kafka's retention ends it. That it was sent back or dropped is
told by a later message on the same topic, a *settlement*, whose header `settles` names letters by
their ids.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing

import msgspec
import structlog
from msgspec import Struct

from onebar.errors import OneBarError, UsageError
from onebar.settings import Settings
from stream.events import (
    BEHAVIORS,
    DEAD_LETTERS,
    IMPRESSIONS,
    NO_JSON,
    RULES,
    VIDEOS,
    Event,
    InvalidEventError,
    parse,
)
from stream.kafka.consumer import RecordConsumer, committed_offsets, end_offsets
from stream.kafka.producer import EventProducer, EventRefusedError, Headers, Message
from stream.kafka.records import Record
from stream.kafka.topics import partition_counts
from stream.workers.dead_letters import THEIRS, TRIES

log = structlog.get_logger(__name__)

REPLAY_GROUP = "dead-letters-replay"
"""Whose offsets OneBar 0.1 kept: what lies before them was sent back by it."""
BATCH = 500
HOPELESS = 3
"""Sent back so often and a letter each time, a message is not sent again unless forced to be."""

Id = tuple[int, int]
"""(partition, offset) of a letter among the dead letters."""


class DeadLetter(Struct, frozen=True):
    """A message set aside. `topic`, `partition`, `offset` and `timestamp` are the original's
    (`topic` without the prefix, times in UTC epoch seconds); `reason` begins with the error's
    name. `number` is (partition, offset) among the dead letters. With `null` the original had no
    value."""

    value: bytes
    key: bytes | None
    topic: str
    partition: int
    offset: int
    timestamp: float
    reason: str
    failed_at: float
    number: Id
    null: bool = False
    mapping: str = ""
    """Which mapping could make no event of it: it is a row of somebody else's topic then, and
    `topic` is that one's whole name."""
    headers: tuple[tuple[str, bytes], ...] = ()
    """Those that such a row had."""
    tries: int = 0
    """How often it was sent back before, and became a letter again."""

    @property
    def id(self) -> str:
        """Its number, as people write it."""
        return f"{self.number[0]}:{self.number[1]}"


class Selection(Struct, frozen=True):
    """Which letters are meant: those with all of what is named. Nothing named: all."""

    ids: frozenset[str] = frozenset()
    reason: str = ""
    """Part of the reason."""
    topic: str = ""
    """The original's, without the prefix."""

    def has(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason in letter.reason
            and (not self.topic or self.topic == letter.topic)
        )


ALL = Selection()


Remake = Callable[[DeadLetter], Sequence[Event]]
"""Makes events of a row of somebody else's topic. Raises a `OneBarError` where it can't."""


class UnmappedLetterError(UsageError):
    """A row of somebody else's topic, and no mapping to make events of it by."""

    def __init__(self, letter: DeadLetter) -> None:
        super().__init__(
            f"it is a row of {letter.topic}, which the mapping {letter.mapping!r} could make no "
            "event of: send it by a mended one, with --map FILE"
        )


class HopelessLetterError(OneBarError, RuntimeError):
    """A letter that was sent back again and again, and is one again."""

    def __init__(self, letter: DeadLetter) -> None:
        super().__init__(
            f"it was sent back {letter.tries} times and failed each time: mend it, drop it, or "
            "send it all the same with --force"
        )


class Refusal(Struct, frozen=True):
    """A letter that was not sent back, and why."""

    id: str
    why: str


class Replayed(Struct, frozen=True):
    """What came of sending letters back."""

    sent: int
    refused: tuple[Refusal, ...] = ()


def key_of(topic: str, value: bytes) -> bytes | None:
    """The key that this value has by itself, as its event or at least as JSON; None where it tells
    of none."""
    try:
        return parse(value).key.encode()
    except InvalidEventError:
        pass
    try:
        ids = msgspec.json.decode(value, type=_Ids)
    except NO_JSON:
        return None
    found = ids.rule_id if topic == RULES else ids.video_id
    if found is None and topic == BEHAVIORS:
        found = ids.user_id
    return None if found is None else str(found).encode("utf-8", "replace")


class _Ids(Struct):
    video_id: str | int | None = None
    user_id: str | int | None = None
    rule_id: str | int | None = None


def topic_of(value: bytes) -> str:
    """The topic, without the prefix, that such a value belongs to; the behaviours' where it does
    not say."""
    try:
        kind = msgspec.json.decode(value, type=_Typed).type
    except NO_JSON:
        kind = ""
    return _TOPICS.get(kind, BEHAVIORS)


_TOPICS = {"video": VIDEOS, "removal": VIDEOS, "impression": IMPRESSIONS, "rule": RULES}


class _Typed(Struct):
    type: str = ""


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
        null=text("null") == "value",
        mapping=text("mapping"),
        headers=tuple(
            (name.removeprefix(THEIRS), value)
            for name, value in record.headers
            if name.startswith(THEIRS)
        ),
        tries=max(0, int(number(TRIES))),
    )


async def _records(settings: Settings) -> AsyncGenerator[list[Record], None]:
    """Batches from the beginning up to the end as it was when asked."""
    name = settings.topic_prefix + DEAD_LETTERS
    count = (await partition_counts(settings)).get(name, 0)
    ends = await end_offsets(settings, [(name, p) for p in range(count)])
    left = {partition for (_, partition), end in ends.items() if end > 0}
    if not left:
        return
    consumer = RecordConsumer(settings, [DEAD_LETTERS], group=None, max_records=BATCH, alone=True)
    await consumer.start()
    try:
        while left:
            records = await consumer.fetch(0.5)
            wanted = [r for r in records if r.offset < ends[(name, r.partition)]]
            if wanted:
                yield wanted
            for partition in list(left):
                if await consumer.position(DEAD_LETTERS, partition) >= ends[(name, partition)]:
                    left.discard(partition)
    finally:
        await consumer.stop()


def _settles(record: Record) -> list[Id]:
    """The letters that a message settles; none where it is a letter itself."""
    named = dict(record.headers).get("settles", b"").decode("utf-8", "replace")
    pairs = (part.partition(":") for part in named.split(",") if part)
    return [(int(p), int(o)) for p, _, o in pairs if p.isdecimal() and o.isdecimal()]


class _Settled:
    """Which letters were sent back or dropped."""

    def __init__(self, before: dict[int, int]) -> None:
        self._before = before
        self._offsets: dict[int, set[int]] = {}

    def __contains__(self, number: Id) -> bool:
        partition, offset = number
        return offset < self._before.get(partition, 0) or offset in self._offsets.get(partition, ())

    def add(self, number: Id) -> None:
        self._offsets.setdefault(number[0], set()).add(number[1])


async def _settled(settings: Settings) -> _Settled:
    name = settings.topic_prefix + DEAD_LETTERS
    count = (await partition_counts(settings)).get(name, 0)
    committed = await committed_offsets(
        settings,
        f"{settings.consumer_group}-{REPLAY_GROUP}",
        [(name, partition) for partition in range(count)],
    )
    settled = _Settled({partition: offset for (_, partition), offset in committed.items()})
    async for records in _records(settings):
        for record in records:
            for number in _settles(record):
                settled.add(number)
    return settled


async def dead_letters(
    settings: Settings, selection: Selection = ALL, *, settled: bool = False
) -> AsyncGenerator[DeadLetter, None]:
    """The letters meant, each partition's in their order, without those that were sent back or
    dropped unless `settled`; in bounded memory. Reads beside every other reader and moves nobody's
    offsets. Raises `KafkaUnavailableError`."""
    done = None if settled else await _settled(settings)
    async with aclosing(_records(settings)) as batches:
        async for records in batches:
            for record in records:
                if _settles(record):
                    continue
                letter = _read(record)
                if selection.has(letter) and (done is None or letter.number not in done):
                    yield letter


async def read_dead_letters(settings: Settings, limit: int | None = None) -> list[DeadLetter]:
    """All dead letters there are, settled or not, oldest failure first, the newest `limit` of them.
    Raises `KafkaUnavailableError`."""
    letters = [letter async for letter in dead_letters(settings, settled=True)]
    letters.sort(key=lambda letter: (letter.failed_at, letter.number))
    return letters if limit is None else letters[-limit:] if limit else []


async def settle(producer: EventProducer, numbers: Collection[Id], how: str) -> None:
    """Note that these are done with: `how` says what was done."""
    if numbers:
        named = ",".join(f"{partition}:{offset}" for partition, offset in numbers)
        headers = (
            ("settles", named.encode()),
            ("how", how.encode()),
            ("at", repr(time.time()).encode()),
        )
        await producer.send_raw(DEAD_LETTERS, b"settlement", b"", headers)


def message_of(letter: DeadLetter, value: bytes | None = None) -> Message:
    """What is sent back of a letter: its own value, or a mended one. The key is the original's, or
    derived from the value where there was none. Raises `UnmappedLetterError`."""
    if letter.mapping:
        raise UnmappedLetterError(letter)
    sent = letter.value if value is None else value
    key = letter.key
    mended = value is not None and value != letter.value
    if key is None or mended:
        key = key_of(letter.topic, sent) or key
    tries = _tried(1 if mended else letter.tries + 1)
    return letter.topic, key, None if letter.null and value is None else sent, tries


def _tried(times: int) -> Headers:
    return ((TRIES, str(times).encode()),)


async def replay_dead_letters(
    settings: Settings,
    mend: Callable[[bytes], bytes] | None = None,
    selection: Selection = ALL,
    remake: Remake | None = None,
    *,
    force: bool = False,
) -> Replayed:
    """Send the letters meant, of those not settled before, back to where they came from.

    `mend` turns a value into a better one; one that still fails comes back as a new dead letter,
    which the next replay takes, up to `HOPELESS` times where it stays as it is and nobody says
    `force`. Of a row of somebody else's topic `remake` makes events anew. One that is hopeless,
    that Kafka refuses, or that does not say where it came from, is named and stays; it holds up no
    other. What was sent is settled, so a second replay sends nothing twice unless the first was cut
    off in between. Raises `KafkaUnavailableError`.
    """
    sent = 0
    refused: list[Refusal] = []
    async with EventProducer(settings) as producer:
        async for letters in _batches(dead_letters(settings, selection)):
            parcels: list[Parcel] = []
            for letter in letters:
                value = mend(letter.value) if mend else None
                try:
                    if letter.tries >= HOPELESS and not force and value in (None, letter.value):
                        raise HopelessLetterError(letter)
                    parcels.append(Parcel(letter.id, _messages(producer, letter, value, remake)))
                except OneBarError as error:
                    refused.append(Refusal(letter.id, str(error)))
            why = await _send(producer, parcels)
            refused += why
            gone = {parcel.id for parcel in parcels} - {refusal.id for refusal in why}
            done = [letter.number for letter in letters if letter.id in gone]
            await settle(producer, done, "replayed")
            sent += len(done)
    log.info("dead_letters_replayed", sent=sent, refused=len(refused))
    return Replayed(sent, tuple(refused))


class NoOriginError(OneBarError, LookupError):
    """A letter that does not say where it came from."""


def _messages(
    producer: EventProducer, letter: DeadLetter, value: bytes | None, remake: Remake | None
) -> list[Message]:
    """What is sent back of a letter. Raises `OneBarError` where nothing can be."""
    if letter.mapping and remake is not None:
        return [producer.message(event) for event in remake(letter)]
    if not letter.topic:
        raise NoOriginError("it does not say which topic it came from")
    return [message_of(letter, value)]


async def mend_dead_letter(settings: Settings, letter: DeadLetter, value: bytes) -> None:
    """Send one letter back with another value, and settle it.

    Raises `InvalidEventError` where the value is no event, `EventRefusedError` where Kafka refuses
    it, and `KafkaUnavailableError`.
    """
    event = parse(value)
    async with EventProducer(settings) as producer:
        topic = event.topic if letter.mapping else letter.topic or event.topic
        await producer.send_messages([(topic, event.key.encode(), value, ())])
        await settle(producer, [letter.number], "edited")


async def drop_dead_letters(settings: Settings, selection: Selection) -> int:
    """Settle the letters meant without sending them anywhere; how many."""
    dropped = 0
    async with EventProducer(settings) as producer:
        async for letters in _batches(dead_letters(settings, selection)):
            await settle(producer, [letter.number for letter in letters], "dropped")
            dropped += len(letters)
    return dropped


class Exported(Struct, frozen=True, omit_defaults=True):
    """A letter as one line of JSON. `value` is text, or base64 where it is no UTF-8."""

    id: str
    topic: str
    partition: int
    offset: int
    failed_at: float
    reason: str
    key: str | None = None
    value: str | None = None
    base64: bool = False
    mapping: str = ""
    timestamp: float = 0.0
    """UTC epoch seconds, of a row of somebody else's topic."""

    @classmethod
    def of(cls, letter: DeadLetter) -> Exported:
        try:
            value, binary = letter.value.decode(), False
        except UnicodeDecodeError:
            value, binary = base64.b64encode(letter.value).decode(), True
        return cls(
            letter.id,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.failed_at,
            letter.reason,
            None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
            None if letter.null else value,
            binary,
            letter.mapping,
            letter.timestamp if letter.mapping else 0.0,
        )

    @property
    def raw(self) -> bytes | None:
        """The value's bytes; None where it is null. Raises `ValueError` for what is no base64."""
        if self.value is None:
            return None
        return base64.b64decode(self.value, validate=True) if self.base64 else self.value.encode()

    def letter(self, number: Id) -> DeadLetter:
        """As it is now. Raises `ValueError` as `raw` does."""
        raw = self.raw
        return DeadLetter(
            value=raw or b"",
            key=None if self.key is None else self.key.encode("utf-8", "replace"),
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            timestamp=self.timestamp,
            reason=self.reason,
            failed_at=self.failed_at,
            number=number,
            null=raw is None,
            mapping=self.mapping,
        )


async def replay_exported(
    settings: Settings, lines: Sequence[Exported], remake: Remake | None = None
) -> Replayed:
    """Send back what was exported, and perhaps mended since, and settle it; rows of somebody else's
    topic by `remake`. Raises `KafkaUnavailableError`."""
    sent = 0
    refused: list[Refusal] = []
    done = await _settled(settings)
    async with EventProducer(settings) as producer:
        for start in range(0, len(lines), BATCH):
            parcels: list[Parcel] = []
            for line in lines[start : start + BATCH]:
                number = _number(line.id)
                if number is None or number in done:
                    why = "it has no id" if number is None else "it was sent back or dropped before"
                    refused.append(Refusal(line.id, why))
                    continue
                try:
                    messages = _exported(producer, line.letter(number), remake)
                except OneBarError as error:
                    refused.append(Refusal(line.id, str(error)))
                    continue
                parcels.append(Parcel(line.id, messages))
            why_not = await _send(producer, parcels)
            refused += why_not
            gone = {parcel.id for parcel in parcels} - {refusal.id for refusal in why_not}
            numbers = [number for one in gone if (number := _number(one)) is not None]
            await settle(producer, sorted(numbers), "replayed")
            sent += len(numbers)
    return Replayed(sent, tuple(refused))


def _exported(producer: EventProducer, letter: DeadLetter, remake: Remake | None) -> list[Message]:
    """What is sent of a line: its value may be another by now, and so its key and topic."""
    if letter.mapping:
        return _messages(producer, letter, None, remake)
    raw = None if letter.null else letter.value
    key = letter.key if raw is None else key_of(letter.topic, raw) or letter.key
    return [(letter.topic or topic_of(raw or b""), key, raw, _tried(1))]


def _number(text: str) -> Id | None:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        return None
    return int(partition), int(offset)


class Parcel(Struct, frozen=True):
    """What is sent of the letter with that id."""

    id: str
    messages: list[Message]


async def _send(producer: EventProducer, parcels: Sequence[Parcel]) -> list[Refusal]:
    """Send them; those of which Kafka refused something."""
    owners = [parcel.id for parcel in parcels for _ in parcel.messages]
    try:
        await producer.send_messages([one for parcel in parcels for one in parcel.messages])
    except EventRefusedError as error:
        why = {owners[place]: reason for place, reason in error.refused.items()}
        return [Refusal(number, reason) for number, reason in why.items()]
    return []


async def _batches(letters: AsyncIterator[DeadLetter]) -> AsyncIterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    async for letter in letters:
        batch.append(letter)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
