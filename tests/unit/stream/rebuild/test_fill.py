"""Where a fill begins, what it leaves to others, and when it stops; without servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest
from msgspec import Struct

from onebar.settings import Settings
from stream.events import BEHAVIORS, RULES, VIDEOS
from stream.kafka.records import Record
from stream.rebuild import fill
from stream.rebuild.fill import Filler, LogGoneError, NoRoomError, Span, spans_of
from stream.workers.metrics import WorkerHealth

Partition = tuple[str, int]
PREFIX = "feed."
SETTINGS = Settings(topic_prefix=PREFIX, state_version="g2")
LIVE = Settings(topic_prefix=PREFIX, state_version="g1")


class Kafka:
    """A partition of each topic, by where it begins and ends; and what groups have committed."""

    def __init__(self) -> None:
        self.begins = dict.fromkeys((VIDEOS, BEHAVIORS, RULES), 0)
        self.ends = dict.fromkeys((VIDEOS, BEHAVIORS, RULES), 100)
        self.later = 60
        self.committed: dict[str, dict[str, int]] = {}

    async def partition_counts(self, settings: Settings) -> dict[str, int]:
        return {PREFIX + name: 1 for name in self.ends}

    def _of(self, names: Iterable[Partition], offsets: dict[str, int]) -> dict[Partition, int]:
        return {pair: offsets.get(pair[0].removeprefix(PREFIX), 0) for pair in names}

    async def begin_offsets(self, settings: Settings, names: Any) -> dict[Partition, int]:
        return self._of(names, self.begins)

    async def end_offsets(self, settings: Settings, names: Any) -> dict[Partition, int]:
        return self._of(names, self.ends)

    async def offsets_at(self, settings: Settings, names: Any, ts: float) -> dict[Partition, int]:
        return self._of(names, dict.fromkeys(self.ends, self.later))

    async def committed_offsets(
        self, settings: Settings, group: str, names: Any
    ) -> dict[Partition, int]:
        return self._of(names, self.committed.get(group, {}))

    async def check_continuity(self, settings: Settings, store: object, only: object) -> None:
        return None


class Vitals(Struct):
    used_bytes: int
    limit_bytes: int


class Store:
    def __init__(self, **reached: int) -> None:
        self.taken = {(f"onebar.{name}", 0): offset for name, offset in reached.items()}
        self.memory: Vitals | None = Vitals(50, 100)

    async def reached(self, pairs: Sequence[Partition]) -> dict[Partition, int]:
        return {pair: self.taken[pair] for pair in pairs if pair in self.taken}

    async def vitals(self) -> Vitals | None:
        return self.memory


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    found = Kafka()
    for name in (
        *("partition_counts", "begin_offsets", "end_offsets", "offsets_at"),
        *("committed_offsets", "check_continuity"),
    ):
        monkeypatch.setattr(fill, name, getattr(found, name))
    return found


async def spans(store: Store, since: float | None = None) -> dict[str, Span]:
    found = await spans_of(SETTINGS, cast(Any, store), since)
    return {topic: span for (topic, _), span in found.items()}


async def test_an_empty_version_lacks_all_that_there_is(kafka: Kafka) -> None:
    kafka.begins[BEHAVIORS] = 30
    found = await spans(Store())
    assert found[BEHAVIORS] == Span(30, 30, 100)
    assert found[VIDEOS].missing == 100


async def test_from_a_time_on_only_behaviours_are_fewer(kafka: Kafka) -> None:
    found = await spans(Store(), since=5.0)
    assert found[BEHAVIORS].start == 60
    assert found[VIDEOS].start == found[RULES].start == 0
    kafka.begins[BEHAVIORS] = 80  # Kafka has not even that
    assert (await spans(Store(), since=5.0))[BEHAVIORS].start == 80


async def test_it_goes_on_where_the_state_says_that_it_is(kafka: Kafka) -> None:
    found = await spans(Store(behaviors=40, videos=99), since=5.0)
    assert found[BEHAVIORS].start == 41
    assert found[VIDEOS].missing == 0
    assert found[RULES].start == 0  # nothing has come on it yet


async def test_what_the_log_has_lost_meanwhile_is_told(kafka: Kafka) -> None:
    kafka.begins[BEHAVIORS] = 42
    with pytest.raises(LogGoneError, match="no more than offset 40"):
        await spans(Store(behaviors=40))
    kafka.begins[BEHAVIORS] = 41
    assert (await spans(Store(behaviors=40)))[BEHAVIORS].missing == 59


def filler(store: Store, *, spares: bool = True) -> Filler:
    made = Filler(SETTINGS, LIVE, cast(Any, store), cast(Any, None), WorkerHealth(), spares=spares)
    made._done = {(name, 0): 0 for name in (VIDEOS, BEHAVIORS, RULES)}
    return made


def record(offset: int, topic: str = BEHAVIORS) -> Record:
    return Record(topic, 0, offset, 0.0, None, b"no JSON")


async def test_letters_are_written_of_what_nobody_has_judged(kafka: Kafka) -> None:
    kafka.committed["onebar-stream-g1"] = {BEHAVIORS: 7, VIDEOS: 7}
    filling = filler(Store())
    filling._anew = frozenset({(VIDEOS, 0)})  # it was judged in a topic that is no more
    await filling._look()
    assert [filling._was_judged(record(offset)) for offset in (6, 7)] == [True, False]
    assert not filling._was_judged(record(6, VIDEOS))


async def test_a_full_redis_stops_a_fill_but_not_the_end_of_a_switch(kafka: Kafka) -> None:
    store = Store()
    store.memory = Vitals(91, 100)
    with pytest.raises(NoRoomError, match="91% of Redis' memory"):
        await filler(store)._look()
    await filler(store, spares=False)._look()
    store.memory = Vitals(91, 0)  # no limit
    await filler(store)._look()
    store.memory = None  # it may not be asked
    await filler(store)._look()
