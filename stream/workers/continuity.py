"""Does the state in Redis belong to the log in Kafka, and is it whole?"""

from __future__ import annotations

from collections.abc import Collection

from feature_store.store import FeatureStore
from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS, RULES, VIDEOS
from stream.kafka.consumer import committed_offsets, end_offsets
from stream.kafka.groups import stream_group
from stream.kafka.topics import partition_counts

INPUTS = (VIDEOS, BEHAVIORS, RULES)
"""The topics that the state is the fold of."""


class LogRewoundError(OneBarError, RuntimeError):
    """A topic ends before what this state has already taken in: it was made anew. Its offsets
    start again at 0, and the fences in the state would drop its events without a word."""

    def __init__(
        self, topic: str, partition: int, reached: int, end: int, state_version: str
    ) -> None:
        super().__init__(
            f"{topic}/{partition} ends at offset {end}, but the state of version "
            f"{state_version!r} has taken in offset {reached}: the topic was made anew. Build the "
            "state from this log: onebar rebuild (or take another ONEBAR_NAMESPACE)"
        )


class StateLostError(OneBarError, RuntimeError):
    """The state tells of less than was taken into it: Redis lost some of it."""

    def __init__(
        self, topic: str, partition: int, reached: int, taken: int, state_version: str
    ) -> None:
        super().__init__(
            f"{topic}/{partition} was taken in up to offset {taken}, but the state of version "
            f"{state_version!r} tells of {f'only {reached}' if reached >= 0 else 'nothing'}: Redis "
            "lost what it held. Build the state anew from the log: onebar rebuild"
        )


Reached = dict[tuple[str, int], int]
"""(topic, partition) -> the last offset taken into the state."""


async def check_continuity(
    settings: Settings, store: FeatureStore, only: Collection[tuple[str, int]] | None = None
) -> Reached:
    """How far the state has taken in each (topic, partition) there is, or those of `only`.

    Raises `LogRewoundError` where the topics are not those that the state was built from, and
    `StateLostError` where the state lacks what was committed.
    """
    counts = await partition_counts(settings)
    prefix = settings.topic_prefix
    pairs = [
        (name, p)
        for name in INPUTS
        for p in range(counts.get(prefix + name, 0))
        if only is None or (name, p) in only
    ]
    names = [(prefix + name, p) for name, p in pairs]
    # In this order: what is committed was taken in before.
    committed = await committed_offsets(settings, stream_group(settings), names)
    reached = await store.reached(pairs)
    ends = await end_offsets(settings, [(prefix + name, p) for name, p in reached])
    for name, partition in pairs:
        at = reached.get((name, partition), -1)
        topic = prefix + name
        end = ends.get((topic, partition), at + 1)
        if end <= at:
            raise LogRewoundError(topic, partition, at, end, settings.state_version)
        taken = committed[(topic, partition)] - 1
        if taken > at:
            raise StateLostError(topic, partition, at, taken, settings.state_version)
    return reached
