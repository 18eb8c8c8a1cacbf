"""A short form of the stream worker's benchmark: that it runs and reports, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def test_the_stream_worker_is_measured() -> None:
    command = [sys.executable, "benchmarks/stream_worker.py", "--events", "2000", "--rounds", "1"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["events"] == 2000
    assert set(found["events_per_s"]) == {"onebar", "faust"}
    assert all(rate > 0 for rate in found["events_per_s"].values())
