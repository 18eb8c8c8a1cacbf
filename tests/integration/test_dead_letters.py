"""Dead letters on a real broker: kept byte for byte, listed, mended, sent back once."""

from __future__ import annotations

import pytest
from stream_fixtures import lag, producer, values

from onebar.settings import Settings
from stream.events import BEHAVIORS, DEAD_LETTERS, MAX_EVENT_BYTES, VIDEOS, InvalidEventError
from stream.kafka.producer import EventProducer, Message
from stream.kafka.records import Record
from stream.kafka.topics import KafkaUnavailableError
from stream.logs.dead_letters import read_dead_letters, replay_dead_letters
from stream.workers.dead_letters import dead_letter, set_aside
from stream.workers.metrics import WorkerHealth

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]


def letter(offset: int, value: bytes, topic: str = BEHAVIORS, reason: str = "bad") -> Message:
    record = Record(topic, 1, offset, 1_700_000_000.25, b"key", value)
    return dead_letter(record, InvalidEventError(reason))


async def send(settings: Settings, *letters: Message) -> None:
    async with producer(settings) as kafka:
        await set_aside(kafka, list(letters), WorkerHealth())


async def test_a_letter_is_the_original_and_says_where_from_and_why(settings: Settings) -> None:
    value = bytes(range(256))
    await send(settings, letter(7, value, reason="no \ud800 JSON"))
    [found] = await read_dead_letters(settings)
    assert found.value == value
    assert (found.topic, found.partition, found.offset) == (BEHAVIORS, 1, 7)
    assert (found.key, found.timestamp) == (b"key", 1_700_000_000.25)
    assert found.reason == "InvalidEventError: no ? JSON"
    assert found.failed_at > found.timestamp


async def test_the_newest_are_listed_oldest_first_and_nobody_moves(settings: Settings) -> None:
    assert await read_dead_letters(settings) == []
    await send(settings, *(letter(n, b"%d" % n) for n in range(20)))
    for _ in range(2):
        assert [found.offset for found in await read_dead_letters(settings)] == list(range(20))
    assert [found.offset for found in await read_dead_letters(settings, 3)] == [17, 18, 19]
    assert await read_dead_letters(settings, 0) == []


async def test_the_longest_event_fits_and_a_longer_one_is_cut(settings: Settings) -> None:
    longest, longer = b"x" * MAX_EVENT_BYTES, b"y" * 5 * 1024 * 1024
    await send(settings, letter(0, longest), letter(1, b"short"))
    await send(settings, letter(2, longer), letter(3, b"short too"))
    found = {letter.offset: letter.value for letter in await read_dead_letters(settings)}
    assert found[0] == longest
    assert longer.startswith(found[2])
    assert 1000 < len(found[2]) < len(longer)
    assert (found[1], found[3]) == (b"short", b"short too")


async def test_letters_go_back_where_they_came_from_and_only_once(settings: Settings) -> None:
    await send(settings, letter(0, b"one"), letter(1, b"two", topic=VIDEOS))
    assert await replay_dead_letters(settings, mend=bytes.upper) == 2
    assert await replay_dead_letters(settings) == 0
    await send(settings, letter(2, b"three"))
    assert await replay_dead_letters(settings) == 1
    assert sorted(await values(settings, BEHAVIORS)) == [b"ONE", b"three"]
    assert await values(settings, VIDEOS) == [b"TWO"]
    assert len(await read_dead_letters(settings)) == 3


async def test_a_replay_that_fails_half_way_takes_them_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(settings, letter(0, b"one"))

    def broken(_: bytes) -> bytes:
        raise ValueError("no mending this")

    with pytest.raises(ValueError, match="no mending"):
        await replay_dead_letters(settings, mend=broken)

    async def away(*_: object) -> None:
        raise KafkaUnavailableError(settings.kafka_bootstrap, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(EventProducer, "send_messages", away)
        with pytest.raises(KafkaUnavailableError):
            await replay_dead_letters(settings)
    assert await values(settings, BEHAVIORS) == []
    assert await replay_dead_letters(settings) == 1
    assert await values(settings, BEHAVIORS) == [b"one"]


async def test_a_message_that_says_nothing_of_itself_is_listed_and_not_sent(
    settings: Settings,
) -> None:
    async with producer(settings) as kafka:
        await kafka.send_raw(DEAD_LETTERS, None, b"?", [("offset", b"\xff")])
    [found] = await read_dead_letters(settings)
    assert (found.topic, found.offset, found.reason) == ("", -1, "")
    assert await replay_dead_letters(settings) == 0
    assert await lag(settings, BEHAVIORS) == 0
