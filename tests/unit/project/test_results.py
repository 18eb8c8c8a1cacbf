"""The command behind docs/results.md, from the log to the page, as small as it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TITLES = ["红色 连衣裙 夏季 新款", "无线 耳机 降噪 价格", "电影 在线观看 高清", "咖啡机 家用 推荐"]


@pytest.mark.program
@pytest.mark.timeout(300)
def test_a_small_run_writes_the_page_and_another_goes_on(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    rows = [
        {
            "id": str(n),
            "query": f"{TITLES[n % 4]} {n}",
            "title": f"{TITLES[n % 4]} {n}页",
            "label": "2",
        }
        for n in range(80)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = tmp_path / "results.md"
    command = [
        *(
            sys.executable,
            str(ROOT / "benchmarks" / "results.py"),
            "--work",
            str(tmp_path / "work"),
        ),
        *("--out", str(page), "--events", "6000", "--seeds", "1", "--scale", "0.001"),
        *("--limit", "40", "--only", "listwise,qbqtc-sft", "--qbqtc", str(pairs)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run() -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return page.read_text(encoding="utf-8")

    first = run()
    for said in ("| oracle |", "| cascade |", "(`sft`)", "(`qbqtc-sft`)", "`shopping`"):
        assert said in first
    for said in (
        "| `listwise` less `sft` |",
        "true_tap@8",
        "for the 3 comparisons of",
        "| `listwise` | ",
    ):
        assert said in first
    assert "`piopd` less" not in first, "what was not measured is not compared"
    models = sorted((tmp_path / "work").rglob("model.safetensors"))
    trained = [path.stat().st_mtime_ns for path in models]
    assert len(trained) == 4
    assert run() == first
    assert [path.stat().st_mtime_ns for path in models] == trained
