"""Short forms of the benchmarks that need no server: that they run and report, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_the_index_is_measured() -> None:
    command = [sys.executable, "benchmarks/neighbor_index.py", "--videos", "3000"]
    done = subprocess.run(
        [*command, "--queries", "50"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["videos"] == 3000
    assert found["recall"] > 0.95
    assert found["search_p50_ms"] > 0


@pytest.mark.timeout(300)
def test_a_small_run_writes_the_page_of_anchors(tmp_path: Path) -> None:
    page = tmp_path / "anchors.md"
    command = [sys.executable, "benchmarks/anchors.py", "--out", str(page), "--preset", "tiny"]
    subprocess.run(
        [*command, "--work", str(tmp_path / "work"), "--events", "6000", "--scale", "0.01",
         "--limit", "60"],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
    )  # fmt: skip
    written = page.read_text(encoding="utf-8")
    for said in ("stage `q2v`", "stage `all`", "| own + near + log |", "shared", "with twice the"):
        assert said in written
    assert str(tmp_path) not in written


def test_the_capacity_page_is_what_the_script_prints() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/capacity.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout == (ROOT / "docs" / "capacity.md").read_text()
