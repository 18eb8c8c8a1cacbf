"""What must be so when all is over: the state, the dead letters, the answers told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import orjson
from second_fold import Limits, refused
from two_folds import first, second

from feature_store.store import FeatureStore
from onebar.settings import Settings
from stream.events import BEHAVIORS, IMPRESSIONS, QUERIES, RULES, VIDEOS
from stream.kafka.consumer import RecordConsumer, end_offsets, group_lag
from stream.kafka.groups import generator_group, stream_group
from stream.kafka.records import Record
from stream.kafka.topics import partition_counts
from stream.logs.dead_letters import read_dead_letters
from tests.faults.feed import Feed
from tests.faults.world import WITHIN_S, World, until

STATE = (VIDEOS, BEHAVIORS, RULES)
LATE_S = 1.0
"""Beyond its budget: on a machine that is shared by ten processes, and that faults keep busy."""
NAMED = 3
"""Of what differs, how much is told."""


async def caught_up(world: World) -> None:
    """Everything was taken in and answered, and nobody is unwell."""

    async def none_left() -> bool:
        settings = world.settings
        counts = await partition_counts(settings)
        for group, topics in (
            (stream_group(settings), STATE),
            (generator_group(settings), (IMPRESSIONS,)),
        ):
            names = [settings.topic_prefix + topic for topic in topics]
            places = [(name, p) for name in names for p in range(counts.get(name, 0))]
            if await group_lag(settings, group, places):
                return False
        return not await world.fleet.unwell(world.http)

    await until(none_left, "the end of the log", 2 * WITHIN_S)


async def faults_found(world: World) -> list[str]:
    """What is not as it must be; nothing where all is."""
    settings = world.settings
    log = await read(settings, (*STATE, IMPRESSIONS))
    async with world.store() as store:
        found = await wrong_state(store, settings, log)
    found += missing(log, world.feed)
    found += await wrong_letters(settings, log)
    found += await untold(settings, world.feed)
    late = [took for took, _ in world.feed.asked if took > LATE_S]
    if late:
        found.append(f"{len(late)} lookups took up to {max(late):.1f} s more than their budget")
    slow = [f"{name} {took:.1f} s" for name, took in world.fleet.stops_s if took > 10]
    if slow:
        found.append(f"took more than 10 s to end: {', '.join(slow)}")
    return found


async def wrong_state(store: FeatureStore, settings: Settings, log: Sequence[Record]) -> list[str]:
    """Where Redis holds anything but what the second fold makes of the log."""
    log = [record for record in log if record.topic in STATE]
    ours, theirs = first(await store.dump()), second(log, settings.policy)
    found = []
    for part, expected in theirs.items():
        held = ours[part]
        if held == expected:
            continue
        if not isinstance(held, dict) or not isinstance(expected, dict):
            found.append(f"{part}: {held!r} for {expected!r}")
            continue
        names = [n for n in held.keys() | expected.keys() if held.get(n) != expected.get(n)]
        told = "; ".join(
            f"{name}: {_apart(held.get(name), expected.get(name))}"
            for name in islice(sorted(names), NAMED)
        )
        found.append(f"{part} of {len(names)} of {len(expected)} differ from the fold: {told}")
    return found


def _apart(held: object, expected: object) -> str:
    if isinstance(held, dict) and isinstance(expected, dict):
        differing = [n for n in held.keys() | expected.keys() if held.get(n) != expected.get(n)]
        return ", ".join(
            f"{name!r} is {held.get(name)!r}, not {expected.get(name)!r}"
            for name in differing[:NAMED]
        )
    return f"is {held!r}, not {expected!r}"[:400]


def missing(log: Iterable[Record], feed: Feed) -> list[str]:
    """What was accepted and is not in the log."""
    there: set[object] = set()
    values: Counter[tuple[str, bytes]] = Counter()
    for record in log:
        values[record.topic, record.value] += 1
        try:
            event = orjson.loads(record.value)
        except ValueError:
            continue
        if isinstance(event, dict):
            there.add(event.get("event_id"))
    found = []
    if gone := sorted(feed.accepted - there):
        found.append(f"{len(gone)} accepted events are not in the log: {gone[:NAMED]}")
    less = [what for what, count in feed.poison.items() if values[what] < count]
    if less:
        found.append(f"{len(less)} messages that are no events are not in the log: {less[:NAMED]}")
    return found


async def wrong_letters(settings: Settings, log: Iterable[Record]) -> list[str]:
    """Dead letters that should not be, and those that are not there. One may be there twice: a
    worker that is killed between the letter and its offset sets it aside again."""
    limits = Limits(future_s=settings.future_allowance_s)
    expected = {
        (record.topic, record.partition, record.offset): record.value
        for record in log
        if refused(record, limits)
    }
    letters = {
        (letter.topic, letter.partition, letter.offset): letter
        for letter in await read_dead_letters(settings)
    }
    found = []
    if more := letters.keys() - expected.keys():
        told = "; ".join(letters[at].reason for at in islice(more, NAMED))
        found.append(f"{len(more)} dead letters too many: {told}")
    if less := expected.keys() - letters.keys():
        found.append(
            f"{len(less)} of {len(expected)} dead letters are missing: {sorted(less)[:NAMED]}"
        )
    changed = [at for at in letters.keys() & expected.keys() if letters[at].value != expected[at]]
    if changed:
        found.append(f"{len(changed)} dead letters are not what came: {changed[:NAMED]}")
    return found


async def untold(settings: Settings, feed: Feed) -> list[str]:
    """Pairs that had an impression, and of which nothing was told."""
    told = set()
    for record in await read(settings, (QUERIES,)):
        body = orjson.loads(record.value)
        told.add((body["video_id"], body.get("user_id")))
    left = sorted(feed.viewed - told)
    if not left:
        return []
    return [f"of {len(left)} of {len(feed.viewed)} impressions nothing was told: {left[:NAMED]}"]


async def read(settings: Settings, topics: Sequence[str]) -> list[Record]:
    """All records of these topics, with what is empty or aborted left out."""
    counts = await partition_counts(settings)
    prefix = settings.topic_prefix
    places = [(prefix + topic, p) for topic in topics for p in range(counts.get(prefix + topic, 0))]
    ends = await end_offsets(settings, places)
    consumer = RecordConsumer(settings, topics, group=None, max_records=2000, alone=True)
    await consumer.start()
    try:
        found: list[Record] = []
        while True:
            found += await consumer.fetch(0.5)
            at = [await consumer.position(name[len(prefix) :], p) for name, p in places]
            if all(here >= ends[place] for here, place in zip(at, places, strict=True)):
                return found
    finally:
        await consumer.stop()
