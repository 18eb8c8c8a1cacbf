"""The mapping worker as a process: a topic of somebody else's rows becomes events that count once,
whatever happens to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from msgspec import UNSET
from stream_fixtures import folded, make_events, records
from support import Workers, eventually

from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot, diff
from onebar.evidence.text import clean_video
from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, VIDEOS, Event
from stream.events.fold import fold
from stream.kafka.consumer import end_offsets, group_lag
from stream.kafka.groups import mapping_group
from stream.kafka.records import event_in
from stream.kafka.topics import TopicSpec, ensure_topics
from stream.logs.dead_letters import read_dead_letters, replay_dead_letters
from stream.mapping.mapping import EventMapping, UnmappedError, open_mapping
from stream.mapping.records import preview_records, remade
from stream.mapping.topic import (
    OurTopicError,
    WrongMappingError,
    check_topic,
    first_records,
    run_mapping,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]

MAP = """
name = "rows of a test"
[[event]]
type = "video"
when = { do = "video" }
fields = { ts = { path = "at", time = "ms" }, video_id = "clip", caption = "text" }
[[event]]
type = "search"
when = { do = "search" }
fields = { ts = { path = "at", time = "ms" }, video_id = "clip", user_id = "who", query = "text" }
[[event]]
type = "click"
when = { do = "click" }
[event.fields]
ts = { path = "at", time = "ms" }
video_id = "$kafka.key"
user_id = "who"
query = "text"
[[event]]
type = "engagement"
when = { do = "engagement" }
[event.fields]
ts = { path = "at", time = "ms" }
video_id = "clip"
user_id = "who"
query = "text"
kind = { value = "cart" }
[[event]]
type = "exposure"
when = { do = "exposure" }
[event.fields]
ts = { path = "at", time = "ms" }
video_id = "clip"
user_id = "who"
queries = { each = "shown", fields = { query = "q" } }
"""
POISON = [b"\x00\x00\x00\x00\x07avro", b"{", b'["row"]', b'{"do": "search", "at": "soon"}']
LATE = {
    "type": "video",
    "when": {"at": "soon"},
    "fields": {"ts": {"value": 5}, "video_id": {"value": "late"}},
}


def row(event: Any) -> dict[str, Any]:
    """How that feed writes an event: without an id."""
    found = {
        "do": event.type,
        "at": int(event.ts * 1000),
        "clip": event.video_id,
        "who": getattr(event, "user_id", UNSET),
        "text": getattr(event, "query", None) or getattr(event, "caption", None),
    }
    if event.type == "exposure":
        found["shown"] = [{"q": shown.query} for shown in event.queries]
    return {name: value for name, value in found.items() if value is not UNSET}


def made(mapping: EventMapping, rows: list[dict[str, Any]]) -> list[Event]:
    """One clean pass."""
    found: list[Event] = []
    for one in rows:
        for event in mapping.events({**one, "$kafka": {"key": one["clip"]}}):
            assert not isinstance(event, UnmappedError)
            found.append(event)
    return found


async def state(settings: Settings) -> StateSnapshot:
    """What the log on our topics comes to."""
    store = MemoryStore(settings.policy)
    for record in await records(settings, VIDEOS, BEHAVIORS):
        for write in fold(event_in(record), clean_video):
            store.apply(write, record.position)
    return store.snapshot()


async def test_killed_in_the_middle_it_loses_and_repeats_nothing(
    settings: Settings, workers: Workers, tmp_path: Path
) -> None:
    topic = f"{settings.topic_prefix}rows"
    await ensure_topics(settings, specs=[TopicSpec("rows")])
    file = tmp_path / "mine.toml"
    file.write_text(MAP)
    mapping = open_mapping(str(file))
    rows = [row(event) for event in make_events(3000, videos=40)]
    values = [(one["clip"].encode(), json.dumps(one).encode()) for one in rows]
    for place, poison in enumerate(POISON):
        values.insert(700 * place + 50, (b"v1", poison))
    values.insert(20, (b"v1", b'{"do": "nothing of ours"}'))
    kafka = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, linger_ms=20)
    async with kafka:
        for key, value in values:
            await kafka.send(topic, value, key=key)
        await kafka.send(topic, None, key=b"v1")
        await kafka.flush()

    partitions = [(topic, p) for p in range(settings.partitions)]
    written = await end_offsets(settings, partitions)
    seen = preview_records(await first_records(settings, topic, 10_000), mapping)
    assert (seen.rows, seen.unmapped, len(seen.errors)) == (len(values) + 1, 2, len(POISON))
    assert len(seen.events) == len(rows)

    watched = settings.model_copy(update={"metrics_port": free_port()})
    command = ("map-topic", topic, "--map", str(file))
    worker = workers.start(*command)
    ours = [(settings.topic_prefix + BEHAVIORS, p) for p in range(settings.partitions)]

    async def begun() -> bool:
        return any((await end_offsets(settings, ours)).values())

    await eventually(begun, what="the first events")
    workers.kill(worker)
    second = workers.start(*command, settings=watched)
    third = asyncio.create_task(run_mapping(settings, topic, mapping))
    group = mapping_group(settings, topic)

    async def mapped() -> bool:
        return await group_lag(settings, group, partitions) == 0

    await eventually(mapped, 60, interval=0.1, what="lag of the mapping workers")
    await workers.ready(second, watched)
    async with httpx.AsyncClient() as http:
        shown = (await http.get(f"http://127.0.0.1:{watched.metrics_port}/metrics")).text
    assert 'onebar_dependency_up{dependency="kafka"} 1.0' in shown
    assert 'dependency="redis"' not in shown
    assert workers.stop(second) == 0, second.tail()
    await end_tasks(third)
    assert diff(folded(made(mapping, rows), settings), await state(settings)) == []

    letters = await read_dead_letters(settings)
    assert {letter.value for letter in letters} == set(POISON)
    assert {letter.topic for letter in letters} == {topic}
    assert any("schema registry" in letter.reason for letter in letters)
    # Not back into a topic that is not ours; by a mapping that knows such rows, into ours.
    told = await replay_dead_letters(settings)
    assert (told.sent, len(told.refused)) == (0, len(letters))
    assert "--map" in told.refused[0].why
    mended = EventMapping({"event": [LATE]}, "mended")
    told = await replay_dead_letters(settings, remake=lambda letter: remade(letter, mended))
    assert told.sent == len([0 for letter in letters if letter.value == POISON[-1]])
    assert "late" in (await state(settings)).videos
    assert await end_offsets(settings, partitions) == written


async def test_what_can_only_be_a_slip_is_refused_before_anything_is_sent(
    settings: Settings, tmp_path: Path
) -> None:
    topic = f"{settings.topic_prefix}rows"
    await ensure_topics(settings, specs=[TopicSpec("rows")])
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as kafka:
        await kafka.send_and_wait(topic, b'{"do": "search", "at": "soon"}')
    (tmp_path / "mine.toml").write_text(MAP)
    mapping = open_mapping(str(tmp_path / "mine.toml"))
    with pytest.raises(WrongMappingError, match="soon"):
        await run_mapping(settings, topic, mapping)
    with pytest.raises(OurTopicError):
        await check_topic(settings, settings.topic_prefix + BEHAVIORS)
    with pytest.raises(Exception, match=r"is 't.*rows' meant"):
        await check_topic(settings, topic + "s")
    ours = [(settings.topic_prefix + name, 0) for name in (VIDEOS, BEHAVIORS)]
    assert not any((await end_offsets(settings, ours)).values())
