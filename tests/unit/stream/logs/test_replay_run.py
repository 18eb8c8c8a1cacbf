"""A replay delivers everything once it ends, whatever stopped it in between, and at its pace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.events import Event, Impression, Search, Video, encode
from stream.logs import replay as replaying
from stream.logs.files import EventLog, LogEntry, TruncatedLogError
from stream.logs.replay import (
    InvalidLineError,
    KafkaSink,
    Replay,
    StateFile,
    StateFileError,
    state_path,
)


class Broker:
    """Takes batches, and breaks down after `good` of them: half of that batch has arrived."""

    def __init__(self, good: int = 10**9) -> None:
        self.good = good
        self.events: list[Event] = []
        self.at: list[float] = []
        self.rejected: list[LogEntry] = []

    async def send(self, events: Sequence[Event]) -> None:
        broken = self.good == 0
        taken = events[: len(events) // 2] if broken else events
        self.events += taken
        self.at += [time.monotonic()] * len(taken)
        self.good -= 1
        if broken:
            raise ConnectionError("the broker is gone")

    async def reject(self, log: Path, entries: Sequence[LogEntry]) -> None:
        self.rejected += entries


def search(number: int, ts: float | None = None) -> Search:
    return Search(
        event_id=f"e{number}", ts=float(number) if ts is None else ts, user_id="u", query="q"
    )


def make_log(path: Path, events: Sequence[Event], junk: Sequence[bytes] = ()) -> EventLog:
    path.write_bytes(b"".join([*(encode(e) + b"\n" for e in events), *(j + b"\n" for j in junk)]))
    return EventLog(path)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "BATCH", 7)
    monkeypatch.setattr(replaying, "SAVE_EVERY_S", 0.0)


async def test_it_delivers_the_log_and_leaves_no_state(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(n) for n in range(2500)], [b"junk"])
    broker, state = Broker(), StateFile(tmp_path / "state")
    report = await Replay(log, broker, state=state).run()
    assert broker.events == [search(n) for n in range(2500)]
    assert [entry.number for entry in broker.rejected] == [2501]
    assert (report.events, report.invalid, report.skipped, report.complete) == (2500, 1, 0, True)
    assert not state.path.exists()


@pytest.mark.usefixtures("small_batches")
@given(breaks=st.lists(st.integers(0, 6), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_broken_off_anywhere_it_goes_on(
    tmp_path_factory: pytest.TempPathFactory, breaks: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("replay")
    wanted = [search(n) for n in range(60)]
    log = make_log(directory / "log.jsonl", wanted, [b"junk", b"more junk"])
    state = StateFile(directory / "state")
    arrived: list[Event] = []
    for good in breaks:
        broker = Broker(good)
        try:
            asyncio.run(Replay(log, broker, state=state).run())
        except ConnectionError:
            arrived += broker.events
        else:
            assert not state.path.exists()
            arrived += broker.events
    last = Broker()
    report = asyncio.run(Replay(log, last, state=state).run())
    arrived += last.events
    assert {event.event_id for event in arrived} == {event.event_id for event in wanted}
    assert report.events + report.invalid + report.skipped == 62
    # Sent twice: at most the batch in which it broke.
    assert len(last.events) == report.events


@pytest.mark.usefixtures("small_batches")
async def test_from_start_sends_everything_again(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(n) for n in range(30)])
    state = StateFile(tmp_path / "state")
    with pytest.raises(ConnectionError):
        await Replay(log, Broker(2), state=state).run()
    assert state.path.exists()
    broker = Broker()
    await Replay(log, broker, state=state, from_start=True).run()
    assert len(broker.events) == 30


@pytest.mark.usefixtures("small_batches")
async def test_another_target_or_log_begins_anew(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(n) for n in range(30)])
    state = StateFile(tmp_path / "state")
    with pytest.raises(ConnectionError):
        await Replay(log, Broker(2), state=state, target="one").run()
    assert Replay(log, Broker(), state=state, target="one").standing.position > 0
    assert Replay(log, Broker(), state=state, target="two").standing.position == 0
    other = make_log(tmp_path / "log.jsonl", [search(n) for n in range(1, 31)])
    assert Replay(other, Broker(), state=state, target="one").standing.position == 0


async def test_a_cancelled_replay_notes_what_was_acknowledged(
    tmp_path: Path, small_batches: None
) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(n) for n in range(30)])
    state = StateFile(tmp_path / "state")
    started = asyncio.Event()

    class Slow(Broker):
        async def send(self, events: Sequence[Event]) -> None:
            if self.good == 0:
                started.set()
                await asyncio.Event().wait()
            await super().send(events)

    task = asyncio.create_task(Replay(log, Slow(3), state=state).run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert Replay(log, Broker(), state=state).standing.events == 21


async def test_strict_stops_at_the_line_with_all_before_it_delivered(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(encode(search(0)) + b"\njunk\n" + encode(search(2)) + b"\n")
    broker = Broker()
    with pytest.raises(InvalidLineError, match="line 2: not JSON"):
        await Replay(EventLog(path), broker, strict=True).run()
    assert broker.events == [search(0)]
    assert broker.rejected == []


async def test_a_cut_log_is_delivered_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes((encode(search(0)) + b"\n") + encode(search(1))[:-5])
    broker = Broker()
    run = Replay(EventLog(path), broker, state=StateFile(tmp_path / "state"))
    with pytest.raises(TruncatedLogError):
        await run.run()
    assert broker.events == [search(0)]
    assert run.report(complete=False).events == 1
    path.write_bytes(encode(search(0)) + b"\n" + encode(search(1)) + b"\n")  # the rest has come
    rest = Broker()
    await Replay(EventLog(path), rest, state=StateFile(tmp_path / "state")).run()
    assert rest.events == [search(1)]


async def test_the_pace_follows_the_log(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(0, 0.0), search(1, 20.0), search(2, 40.0)])
    broker = Broker()
    await Replay(log, broker, speed=100.0).run()
    gaps = [later - earlier for earlier, later in zip(broker.at, broker.at[1:], strict=False)]
    assert min(gaps) > 0.1, "0.2 s between two events"
    assert broker.at[-1] - broker.at[0] > 0.35


async def test_slow_events_are_not_held_back_for_a_batch(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(n, n * 0.04) for n in range(10)])
    broker = Broker()
    await Replay(log, broker, speed=1.0).run()
    assert len(set(broker.at)) > 3, "several batches, though none was full"


async def test_one_wrong_ts_neither_stalls_nor_rushes(tmp_path: Path) -> None:
    times = [1000.0, 1001.0, 8e9, 1002.0, 1003.0]
    log = make_log(tmp_path / "log.jsonl", [search(n, ts) for n, ts in enumerate(times)])
    broker = Broker()
    await Replay(log, broker, speed=20_000.0).run()
    assert len(broker.events) == 5
    pace = replaying._Pace(1.0)
    waits = [pace.delay(ts) for ts in times]
    assert waits[2] == pytest.approx(1 + replaying.MAX_GAP_S, abs=0.1)
    assert waits[4] - waits[3] == pytest.approx(1.0, abs=0.1)


def test_a_state_file_that_is_none_is_named(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log.jsonl", [search(0)])
    path = tmp_path / "state"
    path.write_text("hello")
    with pytest.raises(StateFileError, match="no state of a replay"):
        Replay(log, Broker(), state=StateFile(path))


def test_the_state_lies_beside_the_log_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state_path(tmp_path / "log.jsonl") == tmp_path / "log.jsonl.replay-state.json"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = state_path(Path("/proc/self/log.jsonl"))  # nobody writes there
    assert path.is_relative_to(tmp_path / "cache")


class Fold:
    """A broker whose videos are known when somebody waits for them."""

    def __init__(self) -> None:
        self.sent: list[Event] = []
        self.known: set[str] = set()
        self.early: list[str] = []
        self.waits = 0

    async def send(self, events: Sequence[Event]) -> None:
        self.sent += events
        self.early += [
            event.video_id
            for event in events
            if isinstance(event, Impression) and event.video_id in self.videos - self.known
        ]

    @property
    def videos(self) -> set[str]:
        return {event.video_id for event in self.sent if isinstance(event, Video)}

    async def folded(self) -> None:
        self.waits += 1
        self.known |= self.videos


mixed = st.lists(
    st.tuples(st.sampled_from(["video", "impression", "search"]), st.integers(0, 5)), max_size=40
)


@given(log=mixed, size=st.integers(1, 9))
def test_no_impression_is_sent_before_its_video_is_known(
    log: list[tuple[str, int]], size: int
) -> None:
    events: list[Event] = []
    for number, (kind, video) in enumerate(log):
        common: dict[str, Any] = {"event_id": f"e{number}", "ts": float(number)}
        if kind == "video":
            events.append(Video(**common, video_id=f"v{video}", caption="a tent"))
        elif kind == "impression":
            events.append(Impression(**common, video_id=f"v{video}", user_id="u"))
        else:
            events.append(search(number))
    fold = Fold()

    async def replay() -> None:
        sink = KafkaSink(fold, fold.folded, grace_s=0.0)  # type: ignore[arg-type]
        for start in range(0, len(events), size):
            await sink.send(events[start : start + size])

    asyncio.run(replay())
    assert fold.early == []
    assert Counter(fold.sent) == Counter(events), "each is sent once"
    shown = [event for event in events if isinstance(event, Impression)]
    assert fold.waits <= len(shown), "it waits for the sake of impressions alone"
