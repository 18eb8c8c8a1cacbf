"""A short form of the generation benchmark: that it runs and reports, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import toy_dataset

from onebar.generator.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.program
def test_generation_is_measured(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 50)
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/generation.py", toy_checkpoint.path, dataset.path),
            *("--threads", "2", "--rounds", "1", "--prompts", "4", "--many", "8", "--same", "40"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["checkpoint"] == toy_checkpoint.name
    assert set(found["one_threads"].values()) <= {1, 2}
    assert found["same_of"] == 40
    assert found["same_first"] > 0.9
    assert found["one_times"]["transformers"] > 0
    assert found["many_times"]["transformers_early"] > 0
    assert found["floor_ms"] > 0
