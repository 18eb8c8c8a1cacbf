"""Where a run's logs go: old ones are cleared away, never one in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebar.stack.run_directory import KEPT_RUNS, LOCK, run_directory


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "onebar" / "runs"


def test_only_the_last_runs_are_kept(runs: Path) -> None:
    for number in range(2 * KEPT_RUNS):
        (runs / f"2020-{number:02}").mkdir(parents=True)
    with run_directory() as directory:
        (directory / "stream.log").write_text("a line")
        left = sorted(path.name for path in runs.iterdir())
        assert left[:-1] == [f"2020-{number:02}" for number in range(KEPT_RUNS + 1, 2 * KEPT_RUNS)]
        assert left[-1] == directory.name
    assert (directory / "stream.log").read_text() == "a line"


def test_a_run_that_goes_on_keeps_its_directory(runs: Path) -> None:
    with run_directory() as oldest:
        for _ in range(KEPT_RUNS + 3):
            with run_directory() as newer:
                pass
        assert (oldest / LOCK).exists()
        assert newer.exists()
        # By names of one second nobody can tell which is the oldest.
        assert len(list(runs.iterdir())) in (KEPT_RUNS, KEPT_RUNS + 1)
    with run_directory():
        pass
    assert len(list(runs.iterdir())) == KEPT_RUNS


def test_a_directory_that_was_named_is_made_and_left_alone(tmp_path: Path) -> None:
    for _ in range(2):
        with run_directory(tmp_path / "a" / "b") as directory:
            assert directory == tmp_path / "a" / "b"
            assert list(directory.iterdir()) == []
