"""Dead letters on a real broker: kept byte for byte, listed, mended, sent back once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from stream_fixtures import lag, producer, values
from support import Workers, eventually, onebar

from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, DEAD_LETTERS, MAX_EVENT_BYTES, VIDEOS, InvalidEventError
from stream.kafka.consumer import RecordConsumer
from stream.kafka.producer import EventProducer, EventRefusedError, Message
from stream.kafka.records import Record
from stream.kafka.topics import KafkaUnavailableError, KafkaUnfitError
from stream.logs.dead_letters import (
    ALL,
    HOPELESS,
    DeadLetter,
    Exported,
    Replayed,
    Selection,
    dead_letters,
    drop_dead_letters,
    key_of,
    mend_dead_letter,
    read_dead_letters,
    replay_dead_letters,
    replay_exported,
)
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
    assert await replay_dead_letters(settings, mend=bytes.upper) == Replayed(2)
    assert await replay_dead_letters(settings) == Replayed(0)
    await send(settings, letter(2, b"three"))
    assert await replay_dead_letters(settings) == Replayed(1)
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
    assert await replay_dead_letters(settings) == Replayed(1)
    assert await values(settings, BEHAVIORS) == [b"one"]


async def test_a_message_that_says_nothing_of_itself_is_listed_and_not_sent(
    settings: Settings,
) -> None:
    async with producer(settings) as kafka:
        await kafka.send_raw(DEAD_LETTERS, None, b"?", [("offset", b"\xff")])
    [found] = await read_dead_letters(settings)
    assert (found.topic, found.offset, found.reason) == ("", -1, "")
    replayed = await replay_dead_letters(settings)
    assert replayed.sent == 0
    assert [(r.id, "which topic" in r.why) for r in replayed.refused] == [(found.id, True)]
    assert await lag(settings, BEHAVIORS) == 0


async def test_what_fails_each_time_is_not_sent_for_ever(
    settings: Settings, workers: Workers
) -> None:
    with_metrics = settings.model_copy(update={"metrics_port": free_port()})
    await workers.ready(workers.start("stream", settings=with_metrics), with_metrics)
    async with producer(settings) as kafka:
        await kafka.send_raw(BEHAVIORS, b"k", b"{junk}")

    async def only() -> DeadLetter | None:
        found = [each async for each in dead_letters(settings)]
        return found[0] if len(found) == 1 else None

    async def again(times: int) -> bool:
        found = await only()
        return found is not None and found.tries == times

    for times in range(HOPELESS):
        await eventually(lambda times=times: again(times), what=f"a letter sent back {times} times")
        assert await replay_dead_letters(settings) == Replayed(1)
    await eventually(lambda: again(HOPELESS), what="a hopeless letter")
    told = await asyncio.to_thread(onebar, "dead-letters", "replay", settings=settings)
    assert told.returncode == 3, told.stderr
    assert "sent back 3 times and failed each time" in told.stdout
    [line] = (
        await asyncio.to_thread(onebar, "dead-letters", "list", settings=settings)
    ).stdout.splitlines()
    assert json.loads(line)["tries"] == HOPELESS

    forced = await asyncio.to_thread(onebar, "dead-letters", "replay", "--force", settings=settings)
    assert forced.returncode == 0, forced.stderr
    await eventually(lambda: again(HOPELESS + 1), what="the forced one")
    # Another value is another try.
    assert await replay_dead_letters(settings, mend=bytes.upper) == Replayed(1)
    await eventually(lambda: again(1), what="the mended one")


async def open_ids(settings: Settings, selection: Selection = ALL) -> set[str]:
    return {found.id async for found in dead_letters(settings, selection)}


async def test_letters_are_chosen_by_id_reason_and_topic(settings: Settings) -> None:
    await send(
        settings,
        letter(0, b"a", reason="no JSON"),
        letter(1, b"b", reason="from the future"),
        letter(2, b"c", topic=VIDEOS, reason="no JSON"),
    )
    by_offset = {found.offset: found.id for found in await read_dead_letters(settings)}
    assert await open_ids(settings, Selection(reason="no JSON")) == {by_offset[0], by_offset[2]}
    assert await open_ids(settings, Selection(topic=VIDEOS)) == {by_offset[2]}
    assert await open_ids(settings, Selection(frozenset({by_offset[1]}))) == {by_offset[1]}
    assert await drop_dead_letters(settings, Selection(topic=VIDEOS)) == 1
    replayed = await replay_dead_letters(settings, selection=Selection(reason="future"))
    assert replayed == Replayed(1)
    assert await open_ids(settings) == {by_offset[0]}
    assert await values(settings, BEHAVIORS) == [b"b"]
    assert await values(settings, VIDEOS) == []
    assert len(await read_dead_letters(settings)) == 3


async def test_a_refused_letter_is_named_and_holds_up_no_other(
    servers: Any, settings: Settings
) -> None:
    """Without a key it may not go to a compacted topic, and its value tells of none."""
    if servers.embedded:
        pytest.skip("the embedded broker takes everything")
    video = b'{"type":"video","video_id":"v1","ts":"yesterday"}'
    keyless = [
        dead_letter(Record(VIDEOS, -1, n, 1.0, None, value), InvalidEventError("bad"))
        for n, value in enumerate([b"no JSON", video, b'{"video_id":7}'])
    ]
    await send(settings, letter(10, b"one"), *keyless, letter(11, b"two", topic=VIDEOS))
    replayed = await replay_dead_letters(settings)
    assert replayed.sent == 4
    [refusal] = replayed.refused
    assert "without a key" in refusal.why
    assert await open_ids(settings) == {refusal.id}
    assert sorted(await values(settings, VIDEOS)) == sorted([b"two", video, b'{"video_id":7}'])
    assert await values(settings, BEHAVIORS) == [b"one"]
    assert (await replay_dead_letters(settings)).sent == 0
    assert len(await values(settings, VIDEOS)) == 3  # nothing multiplies


async def test_a_producer_goes_on_after_a_refusal(servers: Any, settings: Settings) -> None:
    """One that numbers its messages can't: Kafka would refuse all that come after."""
    if servers.embedded:
        pytest.skip("the embedded broker takes everything")
    async with producer(settings) as kafka:
        for turn in range(3):
            messages: list[Message] = [
                (VIDEOS, b"%d" % n if n != 5 else None, b"%d-%d" % (turn, n), ()) for n in range(20)
            ]
            with pytest.raises(EventRefusedError, match="without a key") as caught:
                await kafka.send_messages(messages)
            assert list(caught.value.refused) == [5]
            await kafka.send_messages([(VIDEOS, b"after", b"%d" % turn, ())])
    got = await values(settings, VIDEOS)
    assert len(got) == len(set(got)) == 3 * 20


async def test_the_wrong_clock_is_no_fault_of_a_message(
    servers: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker takes any time")
    async with producer(settings) as kafka:
        send = AIOKafkaProducer.send

        async def ahead(self: AIOKafkaProducer, *args: Any, **options: Any) -> Any:
            return await send(self, *args, timestamp_ms=int(1000 * time.time()) + 10**7, **options)

        with monkeypatch.context() as patch:
            patch.setattr(AIOKafkaProducer, "send", ahead)
            with pytest.raises(KafkaUnfitError, match="clock"):
                await kafka.send_raw(BEHAVIORS, b"k", b"v")
        await kafka.send_raw(BEHAVIORS, b"k", b"w")
    assert await values(settings, BEHAVIORS) == [b"w"]


async def test_what_had_no_value_goes_back_without_one(settings: Settings) -> None:
    gone = Record(VIDEOS, 0, 3, 1.0, b"v1", b"", null=True)
    await send(settings, dead_letter(gone, InvalidEventError("no value")), letter(4, b""))
    found = {letter.offset: letter for letter in await read_dead_letters(settings)}
    assert (found[3].null, found[4].null) == (True, False)
    assert await replay_dead_letters(settings) == Replayed(2)
    consumer = RecordConsumer(settings, [VIDEOS, BEHAVIORS], group=None, max_records=10, alone=True)
    await consumer.start()
    got: list[Record] = []
    while len(got) < 2:
        got += await consumer.fetch(1.0)
    await consumer.stop()
    assert {(record.topic, record.null, record.value) for record in got} == {
        (VIDEOS, True, b""),
        (BEHAVIORS, False, b""),
    }


async def test_one_is_mended_by_hand(settings: Settings) -> None:
    mended = b'{"type":"search","event_id":"e","ts":5.0,"user_id":"u","query":"boots"}'
    await send(settings, letter(0, mended[:-1]))
    [found] = await read_dead_letters(settings)
    with pytest.raises(InvalidEventError):
        await mend_dead_letter(settings, found, b"{}")
    assert await open_ids(settings) == {found.id}
    await mend_dead_letter(settings, found, mended)
    assert await open_ids(settings) == set()
    assert await values(settings, BEHAVIORS) == [mended]


async def test_what_was_exported_and_mended_goes_back(settings: Settings) -> None:
    await send(settings, letter(0, b"one"), letter(1, bytes(range(256))))
    lines = [Exported.of(found) for found in await read_dead_letters(settings)]
    lines = [msgspec.json.decode(msgspec.json.encode(line), type=Exported) for line in lines]
    assert [line.raw for line in lines] == [b"one", bytes(range(256))]
    mended = [msgspec.structs.replace(lines[0], value="ONE"), lines[1]]
    assert await replay_exported(settings, mended) == Replayed(2)
    assert sorted(await values(settings, BEHAVIORS)) == sorted([b"ONE", bytes(range(256))])
    again = await replay_exported(settings, mended)
    assert (again.sent, len(again.refused)) == (0, 2)


def test_keys_are_derived_from_values() -> None:
    search = b'{"type":"search","event_id":"e","ts":5.0,"user_id":"u","query":"boots"}'
    assert key_of(BEHAVIORS, search) == b"u"
    assert key_of(VIDEOS, b'{"type":"video","ts":"now","video_id":"v"}') == b"v"
    assert key_of(BEHAVIORS, b'{"user_id":7}') == b"7"
    assert key_of(VIDEOS, b'{"user_id":7}') is None
    assert key_of(VIDEOS, b"no JSON") is None
    assert key_of(VIDEOS, b'{"video_id":"\\ud800"}') is None


async def test_the_command_line_is_safe_and_names_what_it_refuses(
    settings: Settings, tmp_path: Path
) -> None:
    nasty = "\x1b]0;owned\x07\x9b31m \u202e بی\u200cنام 中文"
    good = b'{"type":"search","event_id":"e","ts":5.0,"user_id":"u","query":"boots"}'
    await send(settings, letter(0, nasty.encode(), reason=nasty), letter(1, good[:-1]))
    ids = {found.offset: found.id for found in await read_dead_letters(settings)}

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(onebar, "dead-letters", *words, settings=settings)
        assert done.returncode == 0, done.stderr
        assert "destroyed" not in done.stderr  # a consumer that was left open
        assert not set("\x1b\x07\x9b\u202e") & set(done.stdout)
        return done.stdout

    listed = await run("list")
    assert ids[0] in listed
    assert ids[1] in listed
    assert "بی\u200cنام 中文" in listed
    assert "\\u001b]0;owned" in await run("show", ids[0])
    told = json.loads(await run("show", ids[0], "--json"))
    assert told["value"] == nasty
    mended = tmp_path / "mended.json"
    mended.write_bytes(good)
    assert "1 sent back" in await run("edit", ids[1], "--value", str(mended))
    assert ids[1] not in await run("list")
    assert ids[1] in await run("list", "--settled", "--limit", "0")
    exported = tmp_path / "letters.jsonl"
    assert "1 written" in await run("export", str(exported))
    lines = exported.read_text().replace(json.dumps(nasty, ensure_ascii=False), json.dumps("x"))
    exported.write_text(lines)
    assert "1 sent back" in await run("replay", "--from", str(exported))
    assert await run("list") == ""
    assert len(await values(settings, BEHAVIORS)) == 2
    for words in (("drop",), ("show", "9:9"), ("edit", ids[1], "--value", str(mended))):
        done = await asyncio.to_thread(onebar, "dead-letters", *words, settings=settings)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
