"""`onebar replay` with real stream workers: the state is exact, whatever interrupts it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import Workers, eventually, onebar

from feature_store.store import FeatureStore
from onebar.settings import Settings
from onebar.stack.processes import Child
from onebar.stack.servers import free_port
from onebar.stack.variables import environment
from stream.events import Event, Video
from stream.kafka.producer import EventProducer
from stream.logs.dead_letters import read_dead_letters
from stream.logs.files import EventLog
from stream.logs.fold_check import VideosFolded, differences, wait_for_zero_lag
from stream.logs.offline import OfflineFold
from stream.simulator import SimulatorConfig, write_log

pytestmark = pytest.mark.integration
EVENTS = 3000


@pytest.fixture(scope="session")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated log."""
    path = tmp_path_factory.mktemp("feed") / "feed.jsonl.gz"
    write_log(SimulatorConfig(events=EVENTS, seed=5), path)
    return path


@pytest.fixture
async def stream_worker(workers: Workers, settings: Settings) -> AsyncIterator[Child]:
    """A stream worker at work."""
    with_metrics = settings.model_copy(update={"metrics_port": free_port()})
    worker = workers.start("stream", settings=with_metrics)
    await workers.ready(worker, with_metrics)
    yield worker
    worker.check()


def lines_of(feed: Path) -> list[bytes]:
    return gzip.decompress(feed.read_bytes()).splitlines(keepends=True)


def cut_off(feed: Path, cut: Path) -> None:
    cut.write_bytes(feed.read_bytes()[:-20_000])


def start_replay(log: Path, settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "onebar", "replay", str(log), "--speed", "10000"]
    return subprocess.Popen(command, env=environment(settings), stderr=subprocess.PIPE)


async def folded(settings: Settings, log: Path) -> OfflineFold:
    offline = OfflineFold(settings.policy, future_allowance_s=settings.future_allowance_s)
    await asyncio.to_thread(offline.add_log, EventLog(log))
    return offline


@pytest.mark.usefixtures("stream_worker")
async def test_check_finds_no_difference(settings: Settings, feed: Path) -> None:
    done = await asyncio.to_thread(onebar, "replay", str(feed), "--check", settings=settings)
    assert done.returncode == 0, done.stderr
    assert "no differences" in done.stdout
    assert f"{EVENTS:,} events sent" in done.stdout


@pytest.mark.usefixtures("stream_worker")
async def test_check_finds_a_difference(settings: Settings, feed: Path, tmp_path: Path) -> None:
    lines = lines_of(feed)
    other = tmp_path / "other.jsonl"
    # One behaviour more than the log that is checked: what another feed would add.
    extra = b'{"type":"search","event_id":"x","ts":1,"user_id":"u","video_id":"v","query":"q"}\n'
    other.write_bytes(extra)
    first = await asyncio.to_thread(onebar, "replay", str(other), settings=settings)
    assert first.returncode == 0, first.stderr
    some = tmp_path / "some.jsonl"
    some.write_bytes(b"".join(lines[:200]))
    done = await asyncio.to_thread(
        onebar, "replay", str(some), "--check", "--json", settings=settings
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found["differences"]) == [
        "user 'u': found, but not expected",
        "video 'v': found, but not expected",
    ]


@pytest.mark.usefixtures("stream_worker")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_interrupted_and_run_again_it_counts_once(
    settings: Settings, feed: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    log = tmp_path / "feed.jsonl"
    log.write_bytes(b"".join(lines_of(feed)))
    state = tmp_path / "feed.jsonl.replay-state.json"
    # Seven days in about a minute: it is in the middle whenever it is stopped.
    running = start_replay(log, settings)
    await eventually(state.exists, what="the state file")
    running.send_signal(signum)
    _, said = await asyncio.to_thread(running.communicate)
    if signum is not signal.SIGKILL:
        assert running.returncode == 130, said
        assert b"run it again to go on" in said
    assert state.exists()

    again = await asyncio.to_thread(
        onebar, "replay", str(log), "--check", "--json", settings=settings
    )
    assert again.returncode == 0, again.stdout + again.stderr
    report = json.loads(again.stdout)
    assert report["differences"] == []
    assert report["skipped"] > 0
    assert report["skipped"] + report["events"] == EVENTS
    assert not state.exists()


@pytest.mark.usefixtures("stream_worker")
async def test_replayed_twice_it_counts_once(settings: Settings, feed: Path) -> None:
    for _ in range(2):
        done = await asyncio.to_thread(onebar, "replay", str(feed), settings=settings)
        assert done.returncode == 0, done.stderr
    await wait_for_zero_lag(settings, generator=False)
    assert await differences(settings, (await folded(settings, feed)).snapshot()) == []


@pytest.mark.usefixtures("stream_worker")
async def test_bad_lines_are_dead_letters_and_the_rest_is_exact(
    settings: Settings, feed: Path, tmp_path: Path
) -> None:
    lines = lines_of(feed)[:500]
    future = b'{"type":"search","event_id":"f","ts":8000000000,"user_id":"u","query":"q"}\n'
    lines[100:100] = [b"garbage\xff\n", b'{"type":"video","event_id":"v"}\n', future]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(lines))
    done = await asyncio.to_thread(
        onebar, "replay", str(log), "--check", "--json", settings=settings
    )
    assert done.returncode == 3, done.stdout + done.stderr  # all but what is named
    assert "2 lines of" in done.stderr
    report = json.loads(done.stdout)
    assert (report["events"], report["invalid"], report["differences"]) == (501, 2, [])
    letters = await read_dead_letters(settings)
    assert len(letters) == 3
    assert (await folded(settings, log)).dead_letters == 3
    reasons = {letter.reason.split(":")[0] for letter in letters}
    assert reasons == {"InvalidEventError", "FutureEventError"}
    [garbage] = [letter for letter in letters if letter.value == b"garbage\xff"]
    assert "log.jsonl, line 101" in garbage.reason


async def test_logs_that_end_badly_say_so(settings: Settings, feed: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut_off(feed, cut)
    done = await asyncio.to_thread(onebar, "replay", str(cut), settings=settings)
    assert done.returncode == 1
    assert "cut off after line" in done.stderr
    assert "events were delivered" in done.stderr
    assert "Traceback" not in done.stderr

    empty = tmp_path / "empty.jsonl"
    empty.touch()
    done = await asyncio.to_thread(onebar, "replay", str(empty), settings=settings)
    assert done.returncode == 1
    assert "is empty" in done.stderr

    junk = tmp_path / "junk.jsonl"
    junk.write_text("{junk}\n")
    done = await asyncio.to_thread(onebar, "replay", str(junk), "--strict", settings=settings)
    assert done.returncode == 1
    assert "line 1: not JSON" in done.stderr
    done = await asyncio.to_thread(onebar, "replay", str(junk), settings=settings)
    assert done.returncode == 1
    assert "no line of" in done.stderr
    assert [letter.value for letter in await read_dead_letters(settings)] == [b"{junk}"]


async def test_what_is_no_log_is_refused_and_nothing_is_sent(
    settings: Settings, feed: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("user,item\n1,2\n")
    done = await asyncio.to_thread(onebar, "replay", str(feed), str(table), settings=settings)
    assert done.returncode == 1
    assert "CSV" in done.stderr
    assert "Traceback" not in done.stderr
    assert await read_dead_letters(settings) == []
    done = await asyncio.to_thread(onebar, "replay", "-", "--check", settings=settings)
    assert done.returncode == 2
    assert "read once" in done.stderr


@pytest.mark.usefixtures("stream_worker")
async def test_several_files_and_pipes_are_one_log(
    settings: Settings, feed: Path, tmp_path: Path
) -> None:
    lines = lines_of(feed)[:300]
    parts = [tmp_path / "A.JSONL.GZ", tmp_path / "b", tmp_path / "pipe"]
    parts[0].write_bytes(gzip.compress(b"".join(lines[:100])))
    parts[1].write_bytes(b"[" + b",".join(lines[100:200]) + b"]")
    os.mkfifo(parts[2])
    writing = threading.Thread(target=parts[2].write_bytes, args=(b"".join(lines[200:]),))
    writing.start()
    done = await asyncio.to_thread(onebar, "replay", *map(str, parts), "--json", settings=settings)
    writing.join()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["events"], report["invalid"]) == (300, 0)
    assert [log["events"] for log in report["logs"]] == [100, 100, 100]
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(b"".join(lines))
    await wait_for_zero_lag(settings, generator=False)
    assert await differences(settings, (await folded(settings, whole)).snapshot()) == []


def some_videos(count: int) -> list[Event]:
    return [
        Video(event_id=f"v{n}", ts=float(n), video_id=f"v{n}", caption=f"a tent, look {n}")
        for n in range(count)
    ]


@pytest.mark.usefixtures("stream_worker")
async def test_videos_that_were_waited_for_are_known(
    settings: Settings, store: FeatureStore
) -> None:
    folded = VideosFolded(settings, on_stalled=pytest.fail)
    async with EventProducer(settings) as producer:
        await producer.send(some_videos(500))
        await folded()
    found = await store.features([(f"v{n}", None) for n in range(500)])
    assert all(each.known for each in found)


@pytest.mark.usefixtures("made_topics")
async def test_without_a_worker_videos_are_not_waited_for_for_ever(settings: Settings) -> None:
    told: list[str] = []
    folded = VideosFolded(settings, told.append, stalled_s=0.2)
    await folded()
    assert told == [], "there is none to wait for"
    async with EventProducer(settings) as producer:
        await producer.send(some_videos(3))
    for _ in range(2):
        await folded()
    assert len(told) == 1
    assert "3 videos are not taken in" in told[0]
