"""A short form of the lookup benchmark: that it runs and reports, not how fast."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("wrk") is None and "CI" not in os.environ,
        reason="wrk is not installed: apt-get install wrk",
    ),
]
ROOT = Path(__file__).resolve().parents[2]


def test_lookups_are_measured() -> None:
    command = [sys.executable, "benchmarks/lookup.py", "--rounds", "1", "--seconds", "1"]
    done = subprocess.run(
        [*command, "--pairs", "100"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ours = {"lookup", "batch_of_64", "lookup_redis", "batch_redis"}
    assert set(found["pairs_per_s"]) == ours | {"fastapi_static", "asgi_static"}
    assert found["at_hand"] > 0.5
    assert all(rate > 0 for rate in found["pairs_per_s"].values())
    assert found["at_half_load"]["p99_ms"] >= found["at_half_load"]["p50_ms"] > 0
