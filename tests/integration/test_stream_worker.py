"""The stream worker as a process: state equals the fold of the log whatever happens to it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from lines import Line
from stream_fixtures import (
    NOW,
    add_partitions,
    decisions,
    folded,
    lag,
    make_events,
    producer,
    records,
    values,
)
from support import Workers, eventually
from two_folds import first, second

from feature_store.buckets import add_counts
from feature_store.keys import Keys
from feature_store.memory import MemoryStore
from feature_store.plan import Plan
from feature_store.redis.client import Client, StoreUnavailableError
from feature_store.snapshot import StateSnapshot, diff
from feature_store.store import ApplyStats, FeatureStore
from feature_store.writes import Position
from onebar.evidence.text import clean_video
from onebar.policy import DAY
from onebar.settings import Settings
from onebar.stack.processes import Child
from onebar.stack.servers import free_port
from stream.events import BEHAVIORS, RULES, VIDEOS, Deletion, Event, Search, Video, encode
from stream.events.fold import fold
from stream.kafka.order import PredecessorFailedError
from stream.kafka.records import Record
from stream.logs.dead_letters import read_dead_letters, replay_dead_letters
from stream.workers.continuity import INPUTS
from stream.workers.faust_app import seek_to_committed
from stream.workers.ingest import Ingester
from stream.workers.metrics import WorkerHealth
from stream.workers.runtime import WorkerCrashedError
from stream.workers.stream import EXIT_S, run_stream_worker

RULE_ACTIONS = ("block", "allow", "learn", "pin")

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]


async def caught_up(settings: Settings) -> None:
    """Everything is processed and committed."""

    async def none_left() -> bool:
        return await lag(settings, VIDEOS, BEHAVIORS, RULES) == 0

    await eventually(none_left, 60, interval=0.2, what="lag of the stream worker")


async def assert_state(store: FeatureStore, expected: StateSnapshot) -> None:
    assert diff(expected, await store.dump()) == []


async def assert_second_fold(store: FeatureStore, settings: Settings) -> None:
    """Redis holds what somebody else makes of the log, by docs/events.md."""
    log = await records(settings, VIDEOS, BEHAVIORS, RULES)
    assert first(await store.dump()) == second(log, settings.policy)


async def send(settings: Settings, events: Sequence[Event]) -> None:
    async with producer(settings) as kafka:
        await kafka.send(events)


async def test_the_state_is_the_fold_of_the_log(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = make_events(1500)
    await send(settings, events)
    worker = workers.start("stream")
    await caught_up(settings)
    await assert_state(store, folded(events, settings))
    assert workers.stop(worker) == 0, worker.tail()


async def test_a_replay_of_the_whole_log_changes_nothing(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = make_events(400)
    workers.start("stream")
    await send(settings, events)
    await send(settings, events)
    await caught_up(settings)
    await assert_state(store, folded(events, settings))


async def test_what_a_repeat_is_the_log_alone_says(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = [event for event in make_events(60) if event.topic == BEHAVIORS]
    now = time.time()
    days = (-9.0, -8.6, -5.0, 0.0)  # a replay that is a repeat, and two that count again
    kafka = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    taken = [(event, now + day * DAY) for day in days for event in events]
    async with kafka:
        for event, timestamp in taken:
            await kafka.send_and_wait(
                settings.topic_prefix + event.topic,
                encode(event),
                key=event.key.encode(),
                timestamp_ms=int(timestamp * 1000),
            )
        clean = MemoryStore(settings.policy)
        for offset, (event, timestamp) in enumerate(taken):
            for write in fold(event, clean_video):
                clean.apply(write, Position(event.topic, 0, offset, timestamp))
    workers.start("stream")
    await caught_up(settings)
    await assert_state(store, clean.snapshot())
    await assert_second_fold(store, settings)
    once = folded(events, settings).videos["v1"].counts
    thrice = clean.snapshot().videos["v1"].counts
    assert thrice == {key: add_counts(counts, counts, 2) for key, counts in once.items()}


async def test_killed_workers_lose_and_repeat_nothing(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    """With what people decide among what they do: rules, removals, thresholds, deletions."""
    settings = settings.model_copy(update={"showable_users": 3})
    events = make_events(4000, videos=40)
    for at, decision in enumerate(decisions(400, videos=40)):
        events.insert(9 * at + 40, decision)
    await send(settings, events)
    for _ in range(2):
        worker = workers.start("stream")

        async def begun() -> bool:
            return bool((await store.dump()).videos)

        await eventually(begun, what="the first effect")
        workers.kill(worker)
    workers.start("stream")
    await caught_up(settings)
    expected = folded(events, settings)
    await assert_state(store, expected)
    await assert_second_fold(store, settings)
    # What follows from it: which rules hold, and what enough users asked for others to see it.
    rules = {name: kept.rule for name, kept in expected.rules.items()}
    assert await store.rules_since(0) == rules
    assert {None, *RULE_ACTIONS} == {rule and rule.action for rule in rules.values()}
    assert any(video.text is not None and video.text.removed for video in expected.videos.values())
    reference = MemoryStore(settings.policy)
    for event in events:
        for write in fold(event, clean_video):
            reference.apply(write, None)
    judged = FeatureStore(store.client, store.keys, settings.policy)
    verdicts = []
    for name in expected.videos:
        found = await judged.anchors(name, now=NOW)
        assert found == reference.anchors(name, now=NOW)
        verdicts += [anchor.showable for anchor in found]
    assert {True, False} == set(verdicts)


async def test_two_workers_share_and_survive_the_loss_of_one(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = make_events(3000, videos=40)
    first, _second = workers.start("stream"), workers.start("stream")
    await send(settings, events[:1500])

    async def begun() -> bool:
        return bool((await store.dump()).users)

    await eventually(begun, what="the first effect")
    workers.kill(first)
    await send(settings, events[1500:])
    await caught_up(settings)
    await assert_state(store, folded(events, settings))


async def test_poison_is_set_aside_and_the_rest_goes_on(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    events = make_events(50)
    future = Search(event_id="future", ts=4_000_000_000.0, user_id="u", query="q", video_id="v1")
    poison = [b"\xff\x00garbage", b"[]", b'{"type":"nobody"}', b"", encode(events[0])[:-5]]
    async with producer(settings) as kafka:
        for value in poison:
            await kafka.send_raw(BEHAVIORS, b"v1", value)
        await kafka.send([future, *events])
    worker = workers.start("stream")
    await caught_up(settings)
    await assert_state(store, folded(events, settings))
    letters = await read_dead_letters(settings)
    assert sorted(letter.value for letter in letters) == sorted([*poison, encode(future)])
    assert {letter.topic for letter in letters} == {BEHAVIORS}
    assert all(letter.key == b"v1" and letter.offset >= 0 for letter in letters)
    [late] = [letter for letter in letters if letter.value == encode(future)]
    assert late.reason.startswith("FutureEventError")
    assert workers.stop(worker) == 0, worker.tail()


async def test_mended_dead_letters_come_back_once(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    event = Search(event_id="e", ts=NOW, user_id="u", query="boots", video_id="v")
    async with producer(settings) as kafka:
        await kafka.send_raw(BEHAVIORS, b"v", encode(event) + b"}")
    workers.start("stream")
    await caught_up(settings)
    assert (await replay_dead_letters(settings, mend=lambda value: value[:-1])).sent == 1
    assert (await replay_dead_letters(settings)).sent == 0
    await caught_up(settings)
    await assert_state(store, folded([event], settings))


async def test_a_deleted_user_stays_deleted_through_a_replay(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    searches = [
        Search(event_id=f"e{i}", ts=NOW + 20 * i, user_id="u", query=f"query {i}")
        for i in range(10)
    ]
    # It reaches a minute beyond its own time: what was stamped ahead by then goes as well.
    deletion = Deletion(event_id="d", ts=NOW + 70, user_id="u")
    events: list[Event] = [*searches, deletion]
    workers.start("stream")
    await send(settings, events)
    await send(settings, searches)
    await caught_up(settings)
    await assert_state(store, folded(events, settings))
    history = await store.history("u")
    assert [entry.query for entry in history] == ["query 9", "query 8", "query 7"]


async def test_transactions_leave_gaps_and_aborted_events_have_no_effect(
    servers: Any, settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker has no transactions")
    events = make_events(200)
    aborted = [
        Search(event_id=f"a{i}", ts=NOW, user_id="aborted", query="q", video_id=f"v{i}")
        for i in range(20)
    ]
    watched = settings.model_copy(update={"metrics_port": free_port()})
    worker = workers.start("stream", settings=watched)
    kafka = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.namespace
    )

    async def hand_over(some: Sequence[Event]) -> None:
        for event in some:
            topic = settings.topic_prefix + event.topic
            await kafka.send_and_wait(topic, encode(event), key=event.key.encode())

    async with kafka:
        for start in range(0, len(events), 20):
            async with kafka.transaction():
                await hand_over(events[start : start + 20])
            await kafka.begin_transaction()
            await hand_over(aborted)
            await kafka.abort_transaction()

    async def same() -> bool:
        return not diff(folded(events, settings), await store.dump())

    url = f"http://127.0.0.1:{watched.metrics_port}/metrics"

    async def lags() -> list[float]:
        async with httpx.AsyncClient() as http:
            lines = (await http.get(url)).text.splitlines()
        shown = [line for line in lines if line.startswith("onebar_worker_lag{")]
        return [float(line.rpartition(" ")[2]) for line in shown]

    async def none_left() -> bool:
        return await lags() == [0.0] * len(INPUTS) * settings.partitions

    await eventually(same, interval=0.3)
    await eventually(none_left, what="a batch that is acknowledged")
    assert workers.stop(worker) == 0, worker.tail()

    # What was committed lies behind the gaps: the next worker finds nothing left to take.
    again = workers.start("stream", settings=watched)
    await workers.ready(again, watched)
    await eventually(none_left, what="lag of 0 on every partition")
    async with httpx.AsyncClient() as http:
        shown = (await http.get(url)).text
    assert "onebar_stream_events_total{" not in shown
    assert "onebar_healthy 1.0" in shown
    assert 'onebar_dependency_up{dependency="redis"} 1.0' in shown

    async def every_partition() -> bool:
        async with httpx.AsyncClient() as http:
            lines = re.findall(r'^onebar_group_lag{group="(\w+)"', (await http.get(url)).text, re.M)
        # Those of the generators too, of whom there is none.
        return Counter(lines) == {
            "stream": len(INPUTS) * settings.partitions,
            "generator": settings.partitions,
        }

    await eventually(every_partition)


async def test_what_was_fetched_and_not_committed_comes_again(settings: Settings) -> None:
    """In a rebalance it is thrown away, also before the first commit of a partition."""
    await send(settings, make_events(40))
    consumer = AIOKafkaConsumer(
        settings.topic_prefix + BEHAVIORS,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.consumer_group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    async with consumer:
        fetched: dict[Any, int] = {}
        while len(fetched) < settings.partitions:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                fetched[partition] = records[-1].offset
        committed, bare = sorted(fetched)
        await consumer.commit({committed: fetched[committed]})
        assert await seek_to_committed(consumer) == {committed: fetched[committed], bare: None}
        assert await consumer.position(committed) == fetched[committed]
        assert await consumer.position(bare) == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_another_producer_may_compress_as_it_likes(
    settings: Settings, store: FeatureStore, workers: Workers, codec: str
) -> None:
    events = make_events(100)
    kafka = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, compression_type=codec, linger_ms=50
    )
    async with kafka:
        for event in events:
            topic = settings.topic_prefix + event.topic
            await kafka.send(topic, encode(event), key=event.key.encode())
        await kafka.send(settings.topic_prefix + BEHAVIORS, b"no event" * 100)
    worker = workers.start("stream")
    await caught_up(settings)
    await assert_state(store, folded(events, settings))
    read = await values(settings, BEHAVIORS)  # by the reader of everything but the stream worker
    assert sorted(read) == sorted(
        [encode(event) for event in events if event.topic == BEHAVIORS] + [b"no event" * 100]
    )
    assert workers.stop(worker) == 0, worker.tail()


async def test_a_worker_waits_for_redis_and_says_so(settings: Settings, workers: Workers) -> None:
    away = settings.model_copy(
        update={"redis_url": f"redis://127.0.0.1:{free_port()}/0", "metrics_port": free_port()}
    )
    worker = workers.start("stream", settings=away)
    await eventually(lambda: "dependency_away" in worker.log.read_text(), what="a warning")
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{away.metrics_port}/healthz")
    assert answer.status_code == 503
    assert "redis" in answer.json()["problems"]
    assert worker.running
    assert workers.stop(worker) == 0, worker.tail()


async def test_a_failure_nobody_foresaw_ends_the_worker_and_loses_nothing(
    settings: Settings, store: FeatureStore, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = make_events(300)
    await send(settings, events)
    small = settings.model_copy(update={"stream_batch": 20})
    take, taken = Ingester.take, 0

    async def fails_later(self: Ingester, records: Sequence[Record]) -> None:
        nonlocal taken
        taken += 1
        if taken == 4:
            raise ZeroDivisionError("a bug")
        await take(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(Ingester, "take", fails_later)
        with pytest.raises(WorkerCrashedError, match="a bug"):
            await run_stream_worker(small)
    assert taken == 4  # nothing was handed on after it
    assert await lag(settings, VIDEOS, BEHAVIORS) > 0
    workers.start("stream")
    await caught_up(settings)
    await assert_state(store, folded(events, settings))


class Faltering(FeatureStore):
    """Says now and then that Redis is away: what was sent has had its effect, or has not."""

    chance = random.Random(7)

    async def carry_out(self, planned: Plan) -> ApplyStats:
        falters = self.chance.random()
        if falters < 0.15:
            raise StoreUnavailableError("before")
        stats = await super().carry_out(planned)
        if falters < 0.3:
            raise StoreUnavailableError("behind")
        return stats


async def test_batches_in_hand_together_have_their_effect_in_order(
    settings: Settings, client: Client, store: FeatureStore
) -> None:
    events = make_events(300)
    await send(settings, events)
    batches = defaultdict[tuple[str, int], list[list[Record]]](list)
    for record in await records(settings, VIDEOS, BEHAVIORS):
        mine = batches[record.topic, record.partition]
        if not mine or len(mine[-1]) == 20:
            mine.append([])
        mine[-1].append(record)
    faltering = Faltering(client, store.keys, store.policy)
    async with producer(settings) as kafka:
        ingester = Ingester(faltering, kafka, WorkerHealth())
        tasks = {
            pair: [asyncio.create_task(ingester.take(batch)) for batch in mine]
            for pair, mine in batches.items()
        }
        most = max(batches, key=lambda pair: len(batches[pair]))
        await tasks[most][0]
        cancelled = tasks[most][2]
        cancelled.cancel()
        ended = await asyncio.gather(*tasks[most], return_exceptions=True)
        assert ended[:2] == [None, None]
        assert isinstance(ended[2], asyncio.CancelledError)
        assert {type(each) for each in ended[3:]} == {PredecessorFailedError}
        await asyncio.gather(*(task for pair in tasks if pair != most for task in tasks[pair]))
        assert (await store.reached([most]))[most] == batches[most][1][-1].offset
        await asyncio.gather(*(ingester.take(batch) for batch in batches[most][2:]))
    await assert_state(store, folded(events, settings))
    await assert_second_fold(store, settings)


async def test_a_topic_made_anew_is_refused_and_another_generation_accepted(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    await store.note_reached({(BEHAVIORS, 0): 5})
    worker = workers.start("stream")
    await eventually(lambda: not worker.running)
    assert worker.process.returncode not in (0, None)
    said = worker.log.read_text()
    assert "onebar rebuild" in said
    assert "Traceback" not in said

    events = make_events(30)
    await send(settings, events)
    anew = settings.model_copy(update={"state_version": "g2"})
    workers.start("stream", settings=anew)
    await caught_up(anew)
    await assert_state(
        FeatureStore(store.client, Keys(anew.namespace, "g2"), anew.policy), folded(events, anew)
    )


async def test_while_redis_stalls_nothing_is_lost_and_the_worker_still_stops(
    settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    async with Line(settings.redis_url) as line:
        slow = settings.model_copy(update={"redis_url": line.url, "redis_timeout_s": 0.5})
        worker = workers.start("stream", settings=slow)
        events = make_events(300)
        await send(settings, events[:150])
        await caught_up(settings)
        line.hold()
        await send(settings, events[150:])
        await eventually(lambda: "dependency_away" in worker.log.read_text(), what="a warning")
        assert workers.stop(worker) == 0, worker.tail()
        again = workers.start("stream", settings=slow)
        line.release()
        await caught_up(settings)
        await assert_state(store, folded(events, settings))
        assert again.running


async def ends_as_state_was_lost(worker: Child) -> None:
    await eventually(lambda: not worker.running, 30 + EXIT_S)
    assert worker.process.returncode not in (0, None)
    said = worker.log.read_text()
    assert "Redis lost what it held" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("at_work", [True, False])
async def test_a_redis_that_lost_its_state_is_noticed(
    settings: Settings, store: FeatureStore, workers: Workers, at_work: bool
) -> None:
    events = make_events(60)
    worker = workers.start("stream")
    await send(settings, events[:30])
    await caught_up(settings)
    if not at_work:
        assert workers.stop(worker) == 0, worker.tail()
    names = [name async for name in store.client.scan_iter(match=f"{store.keys.prefix}*")]
    for name in names:
        await store.client.delete(name)
    assert names
    await send(settings, events[30:])
    if at_work:
        await ends_as_state_was_lost(worker)
    await ends_as_state_was_lost(workers.start("stream"))

    anew = settings.model_copy(update={"state_version": "g2"})
    workers.start("stream", settings=anew)
    await caught_up(anew)
    await assert_state(
        FeatureStore(store.client, Keys(anew.namespace, "g2"), anew.policy), folded(events, anew)
    )


async def test_partitions_that_are_added_are_read_within_thirty_seconds(
    servers: Any, settings: Settings, store: FeatureStore, workers: Workers
) -> None:
    if servers.embedded:
        pytest.skip("the embedded broker adds none")
    worker = workers.start("stream")
    events = make_events(60, videos=40)
    await send(settings, events[:30])
    await caught_up(settings)
    await add_partitions(settings, VIDEOS, 6)
    await add_partitions(settings, BEHAVIORS, 6)
    more = [
        Video(event_id=f"new{i}", ts=NOW, video_id=f"new{i}", caption="boots") for i in range(40)
    ]
    await send(settings, more)  # a new producer: by all partitions
    await send(settings, events[30:])

    async def all_there() -> bool:
        return not diff(folded([*events, *more], settings), await store.dump())

    await eventually(all_there, 30, interval=0.3)
    assert worker.running
