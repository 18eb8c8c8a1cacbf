"""Short forms of the benchmarks that need servers: that they run and report, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def measured(name: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_stream_worker_is_measured() -> None:
    found = measured("stream_worker", "--events", "2000", "--rounds", "1")
    assert found["events"] == 2000
    assert set(found["events_per_s"]) == {"onebar", "faust"}
    assert all(rate > 0 for rate in found["events_per_s"].values())


def test_freshness_is_measured() -> None:
    found = measured("freshness", "--rate", "100", "--probes", "5", "--impressions", "2")
    assert found["rate"] > 0
    for kind in ("behavior_ms", "impression_ms"):
        assert found[kind]["p99"] >= found[kind]["p50"] > 0


def test_starts_are_measured() -> None:
    found = measured("start", "--rounds", "1")
    assert set(found["seconds"]) == {"python", "help", "fastapi_ready", "api_ready"}
    assert all(seconds > 0 for seconds in found["seconds"].values())


def test_the_memory_of_a_loaded_stack_is_read() -> None:
    found = measured("soak", "--minutes", "0.1", "--rate", "100", "--every", "0.5")
    assert found["rate"] > 0
    assert sum(found["lookups"].values()) > 0
    assert {"stream", "generator", "api"} <= found["memory"].keys()
    assert all(read["at_the_end_mib"] > 10 for read in map(found["memory"].get, ("stream", "api")))


def test_fresh_answers_under_many_callers_are_measured() -> None:
    found = measured("batching", "--requests", "10", "--rounds", "1")
    assert set(found["onebar"]) == {"1", "4", "8", "16", "32"}
    assert all(run["per_s"] > 0 for run in found["onebar"].values())
