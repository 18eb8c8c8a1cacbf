"""Short forms of the benchmarks that need no server: that they run and report, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from teachers import endpoint

from onebar.generator.checkpoint import SHIPPED

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


@pytest.mark.program
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


@pytest.mark.program
@pytest.mark.timeout(300)
def test_open_sets_are_answered_beside_baselines_and_judged(tmp_path: Path) -> None:
    """On a few lines of our own; run again, it asks the teacher nothing."""
    data = tmp_path / "data"
    data.mkdir()
    everyday = {"title": "Unboxing a matcha whisk", "item_title": "Bamboo Matcha Whisk"}
    lines = {
        "everyday_videos.jsonl": [
            {**everyday, "on_topic_if_contains": ["matcha"], "must_reject": False},
            {"title": "goodbye", "on_topic_if_contains": [], "must_reject": True},
        ],
        "chorus_ratings.jsonl": [
            {"title": f"Acme {thing} {n} black", "query": thing, "rating": grade}
            for n, thing in enumerate(["hand mixer", "desk lamp", "garden hose", "rain boots"])
            for grade in (3, 0)
        ],
        "kuairec_captions.jsonl": [
            {"video_id": str(n), "caption": "今天教大家做红烧肉", "cover_text": ""}
            for n in range(99)
        ],
        "qbqtc_dev.json": [
            {"query": f"第{n}集红烧肉做法", "title": f"第{n}集红烧肉做法大全", "label": "1"}
            for n in range(60)
        ],
    }
    for name, rows in lines.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (data / name).write_text(text, "utf-8")

    def say(asked: str) -> str:
        if "Search:" in asked:
            return "yes"
        return "红烧肉做法" if "红烧肉" in asked else "matcha whisk\nhand mixer\nREJECT"

    page = tmp_path / "page.md"
    command = [sys.executable, "benchmarks/open_sets.py", "--data", str(data), "--limit", "2"]
    command += ["--sample", "2", "--work", str(tmp_path / "work"), "--out", str(page)]
    command += ["--trained", str(SHIPPED)]
    with endpoint(say) as teacher:
        for _ in range(2):
            subprocess.run(
                [*command, "--teacher", teacher.address],
                capture_output=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=True,
            )
            asked = len(teacher.asked)
        assert len(teacher.asked) == asked
    written = page.read_text(encoding="utf-8")
    for said in ("Everyday videos", "Chorus", "KuaiRec", "the title itself", "likeliest spans"):
        assert said in written
    assert "| teacher little | 1 | 1 | 1 | 0 | 0 of 1 |" in written
    assert "| Chorus | 1 | 1.000 ± 0.000 | 1.000 ± 0.000 |" in written
    assert written.count("| demo, of its training part |") == 1
    assert str(tmp_path) not in written
    assert "红烧肉" not in written
