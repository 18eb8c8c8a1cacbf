"""What became of one answer, and what it was made from, looked for in Kafka by its request id.

Topics have no index: they are read from `since` on, and what can't be it is told by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from msgspec import UNSET, Struct

from onebar.records import Candidate
from onebar.settings import Settings
from stream.answers.placed import Made, Placed, is_of
from stream.events import (
    BEHAVIORS,
    IMPRESSIONS,
    NO_JSON,
    QUERIES,
    VIDEOS,
    InvalidEventError,
)
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.consumer import RecordConsumer, begin_offsets, end_offsets, offsets_at
from stream.kafka.records import Record, event_in
from stream.kafka.topics import partition_counts

BATCH = 2000
PLAIN = re.compile(r"[\w.:~-]+", re.ASCII)
"""Ids that stand in JSON as they are, whoever wrote it."""

Told = Callable[[float, str], None]
"""Takes the share of the records that was read (0 to 1), and of what."""


class _Told(Struct):
    """A message of `onebar.queries`."""

    video_id: str
    queries: tuple[Candidate, ...]
    model: str
    evidence_digest: str
    generated_at: float
    user_id: str | None = None


async def of_request(settings: Settings, request_id: str, since: float, told: Told) -> list[Placed]:
    """The impressions, exposures, clicks and engagements of an answer, by time."""
    needles = _needles(request_id)
    found = []
    async for record in _scan(settings, (BEHAVIORS, IMPRESSIONS), since, needles, told):
        placed = _placed(record, settings)
        if placed and getattr(placed.event, "request_id", UNSET) == request_id:
            found.append(placed)
    return sorted(found, key=lambda one: one.event.ts)


async def of_pair(
    settings: Settings,
    video_id: str,
    user_id: str | None,
    since: float,
    until: float,
    told: Told,
) -> list[Placed]:
    """What the log had taken of the video and of the user before `until`, in its order."""
    # A feed that writes to Kafka by itself writes a user's own id, whatever the pseudonym.
    named = [] if user_id is None or settings.user_id_key else [user_id]
    needles = None if settings.user_id_key else _needles(video_id, *named)
    found = []
    async for record in _scan(settings, (VIDEOS, BEHAVIORS), since, needles, told):
        if record.timestamp >= until:
            continue
        placed = _placed(record, settings)
        if placed and is_of(placed.event, video_id, user_id):
            found.append(placed)
    return found


async def made_for(
    settings: Settings, video_id: str, since: float, told: Told
) -> list[tuple[str | None, Made]]:
    """What generators made for a video, each with for whom (None: anybody), by time."""
    found = []
    async for record in _scan(settings, (QUERIES,), since, _needles(video_id), told):
        try:
            one = msgspec.json.decode(record.value, type=_Told)
        except NO_JSON:
            continue
        if one.video_id == video_id:
            made = Made(
                one.queries,
                one.model,
                one.evidence_digest,
                one.generated_at,
                _where(record),
            )
            found.append((one.user_id, made))
    return sorted(found, key=lambda one: one[1].generated_at)


def _needles(*ids: str) -> Sequence[bytes] | None:
    """What a message that names one of these has in it; None where it may be written otherwise."""
    if not all(PLAIN.fullmatch(name) for name in ids):
        return None
    return [name.encode() for name in ids]


def _placed(record: Record, settings: Settings) -> Placed | None:
    try:
        event = event_in(record, Pseudonyms(settings.user_id_key))
    except InvalidEventError:
        return None
    return Placed(event, record.timestamp, _where(record))


def _where(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"


async def _scan(
    settings: Settings,
    topics: Sequence[str],
    since: float,
    needles: Sequence[bytes] | None,
    told: Told,
) -> AsyncIterator[Record]:
    """Records from `since` to the end as it was when asked, which hold one of the needles."""
    counts = await partition_counts(settings)
    prefix = settings.topic_prefix
    pairs = [(prefix + name, p) for name in topics for p in range(counts.get(prefix + name, 0))]
    ends = await end_offsets(settings, pairs)
    begins = await begin_offsets(settings, pairs)
    if since > 0:
        begins = {**begins, **await offsets_at(settings, pairs, since)}
    start = {
        (name[len(prefix) :], p): begins[name, p]
        for name, p in pairs
        if begins[name, p] < ends[name, p]
    }
    if not start:
        return
    total = sum(ends[prefix + topic, p] - begin for (topic, p), begin in start.items())
    read = 0
    left = set(start)
    consumer = RecordConsumer(settings, topics, group=None, max_records=BATCH, start_from=start)
    await consumer.start()
    try:
        while left:
            records = await consumer.fetch(0.5)
            read += len(records)
            told(min(1.0, read / total), f"{read:,} records of {', '.join(topics)}")
            for record in records:
                if needles is None or any(needle in record.value for needle in needles):
                    yield record
            for pair in list(left):
                if await consumer.reached(*pair, ends[prefix + pair[0], pair[1]]):
                    left.discard(pair)
    finally:
        await consumer.stop()
