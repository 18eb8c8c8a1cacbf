"""The demo as a newcomer runs it: one command, real processes, the shipped checkpoint."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from onebar.settings import Settings
from stream.kafka.topics import partition_counts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

KEYS = [
    *("events", "dead_letters", "videos", "users", "anchors"),
    *("cached", "generated", "fallback", "rejected"),
    *("lookup_p50_ms", "lookup_p99_ms", "freshness_p50_ms", "freshness_p99_ms", "state_equal"),
]
ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ONEBAR_DATA") or ROOT.parent / "shared" / "data") / "kuaisearch_demo"


def demo(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`onebar demo --check --json` on the servers that the suite runs on."""
    command = [sys.executable, "-P", "-m", "onebar", "demo", "--check", "--json"]
    return subprocess.run(
        [*command, "--port", "0", "--run-dir", str(run_dir), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=390,
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    assert list(report) == KEYS
    assert report["state_equal"] is True
    return report


def test_check_on_a_simulated_log(tmp_path: Path) -> None:
    report = report_of(demo(tmp_path, "--events", "1500"))
    assert report["events"] == 1500 + 200 + 50, "the log, the probes and their impressions"
    assert report["dead_letters"] == 0
    assert report["videos"] > 50
    assert report["cached"] > 0
    sampled = report["cached"] + report["generated"] + report["fallback"]
    assert sampled > 100
    assert report["rejected"] <= sampled
    assert 0 < report["lookup_p50_ms"] <= report["lookup_p99_ms"]
    assert 0 < report["freshness_p50_ms"] <= report["freshness_p99_ms"]


TAKEN = ("api/__init__.py", "feature_store/__init__.py", "onebar/__init__.py", "stream.py")


def test_nothing_in_the_working_directory_stands_in_for_a_package_of_ours(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in TAKEN:
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(f"raise ImportError('{name} of the working directory')\n")
    command = [
        sys.executable,
        "-P",
        "-m",
        "onebar",
        "demo",
        "--check",
        "--json",
        "--port",
        "0",
        "--events",
        "300",
    ]
    done = subprocess.run(
        [*command, "--run-dir", tmp_path / "run"],
        cwd=mine,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=390,
    )
    assert report_of(done)["events"] == 300 + 200 + 50


def test_check_on_kuaisearch(tmp_path: Path) -> None:
    if not DATA.is_dir():
        reason = f"the KuaiSearch set is not at {DATA}; set ONEBAR_DATA to where the data is"
        if os.environ.get("CI") and os.environ.get("ONEBAR_DATA") != "none":
            pytest.fail(reason)
        pytest.skip(reason)
    done = demo(tmp_path, "--log", str(DATA), "--format", "kuaisearch")
    report = report_of(done)
    assert report["events"] == 51_862 + 200 + 50
    # One of the 198 users searched for nothing but an emoji, of which no query is left.
    assert report["users"] == 197 + 20


def test_check_counts_the_dead_letters_of_a_bad_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = [
        {"type": "video", "event_id": "v", "ts": 1.7e9, "video_id": "v1", "title": "red shoes"},
        {"type": "impression", "event_id": "i", "ts": 1.7e9, "video_id": "v1", "user_id": "u"},
    ]
    bad = ["garbage", '{"type":"click"}']
    log.write_text("".join(f"{line}\n" for line in [*map(json.dumps, good), *bad]))
    report = report_of(demo(tmp_path, "--log", str(log)))
    assert report["dead_letters"] == 2


def test_a_log_that_is_empty_fails_with_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.touch()
    done = demo(tmp_path, "--log", str(log))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is empty" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def start_demo(run_dir: Path, err: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "onebar", "demo", "--port", "0", "--lang", "zh"]
    with err.open("wb") as out:
        return subprocess.Popen(
            [*command, "--events", "1000", "--run-dir", str(run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


async def test_the_demo_shows_a_live_page_until_ctrl_c(tmp_path: Path, settings: Settings) -> None:
    err = tmp_path / "demo.err"
    process = start_demo(tmp_path, err)
    try:

        def live() -> bool:
            assert process.poll() is None, err.read_text()
            return "a second from now on" in err.read_text()

        await eventually(live, 90, what="the demo")
        [line] = [line for line in err.read_text().splitlines() if "The page:" in line]
        url = line.split()[-1]
        pointed = dict(
            line.removeprefix("export ").split("=", 1)
            for line in (tmp_path / "onebar.env").read_text().splitlines()
        )
        assert f". {tmp_path}/onebar.env && onebar status" in err.read_text()
        assert pointed["ONEBAR_TOPIC_PREFIX"] == pointed["ONEBAR_NAMESPACE"] + "."
        assert urllib.parse.urlsplit(url).port == int(pointed["ONEBAR_API_PORT"])
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
        assert b"<html" in page

        def bars() -> list[Any]:
            with urllib.request.urlopen(urllib.parse.urljoin(url, "/v1/feed")) as answer:
                return [
                    video
                    for video in json.load(answer)["videos"]
                    if video["answer"]["queries"] or video["answer"]["rejected"]
                ]

        await eventually(lambda: asyncio.to_thread(bars), 60, what="the bars of the feed")
    finally:
        process.send_signal(signal.SIGINT)
        status = await asyncio.to_thread(process.wait, 90)  # topics are deleted
    assert status == 0, err.read_text()
    if "ONEBAR_KAFKA_BOOTSTRAP" in os.environ:
        there = await partition_counts(settings)
        assert not [name for name in there if name.startswith("onebar-run-")]
