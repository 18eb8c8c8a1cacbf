"""The data that docs/results.md measures on: a simulated log, and real Chinese text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from experiments import QBQTC, SIMULATOR
from layout import dataset_directory, source_directory
from qbqtc import make_dataset

from onebar.evaluation.evaluate import propensities
from onebar.evaluation.outcomes import RelevanceGrade, TapChances
from onebar.evaluation.predict import Prediction
from onebar.process.files import replacing
from onebar.triggers import Split, Trigger, TriggerDataset, open_dataset

WORLD_SEED = 1
LANG = "en"
LOG = "log.jsonl.zst"
LEARNT_SHARE = 0.5
"""The last share of the log's time has the triggers; what came before serves as evidence."""
SIMULATED = {"ONEBAR_SHOWABLE_USERS": "1"}
"""Nobody's privacy is at stake, and few simulated people ask the same after one video."""
TEST_SHARE = 0.3


def dataset_of(work: Path, source: str) -> TriggerDataset:
    return open_dataset(dataset_directory(work, source))


def make_simulated(work: Path, events: int, days: float) -> None:
    """The log, its archive and its dataset, by the same commands as anybody's."""
    directory = source_directory(work, SIMULATOR)
    log, archive, dataset = directory / LOG, directory / "archive", directory / "dataset"
    since = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(days=days * (1 - LEARNT_SHARE))
    steps: tuple[tuple[Path, list[str]], ...] = (
        (
            log,
            ["simulate", "--out", str(log), "--lang", LANG, "--seed", str(WORLD_SEED),
             "--events", str(events), "--days", str(days)],
        ),
        (archive / "archive.json", ["archive", "--log", str(log), "--out", str(archive)]),
        (
            dataset,
            ["dataset", str(archive), "--out", str(dataset), "--test", str(TEST_SHARE),
             "--since", since.strftime("%Y-%m-%dT%H:%M:%S")],
        ),
    )  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    for result, arguments in steps:
        if not result.exists():
            command = [sys.executable, "-P", "-m", "onebar", *arguments]
            subprocess.run(command, check=True, env=os.environ | SIMULATED)


def make_qbqtc(work: Path, file: Path) -> None:
    """Title → query, from the file of the CLUE benchmark."""
    if not dataset_directory(work, QBQTC).exists():
        make_dataset(file, dataset_directory(work, QBQTC))


def test_triggers(work: Path, source: str, limit: int) -> list[Trigger]:
    """Clicks and rejects of the test part, evenly thinned to `limit`."""
    return thinned(list(dataset_of(work, source).read("test", ("click", "reject"))), limit)


def thinned(triggers: list[Trigger], most: int) -> list[Trigger]:
    """At most so many, evenly from all; the same ones every time."""
    many = min(most, len(triggers))
    return [triggers[at * len(triggers) // many] for at in range(many)]


def propensity_of(work: Path, split: Split = "test") -> tuple[float, ...]:
    """How likely each place of the simulated bars of a split is looked at, as its log tells;
    estimated once."""
    path = source_directory(work, SIMULATOR) / f"{split}-propensity.json"
    if not path.exists():
        found = propensities(dataset_of(work, SIMULATOR), split)
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(msgspec.json.encode(found))
    return msgspec.json.decode(path.read_bytes(), type=tuple[float, ...])


def relevance_of(work: Path, source: str) -> RelevanceGrade | None:
    """The grade of (video, query) by the simulator's hidden truth; nobody knows it elsewhere."""
    return _truth(work).relevance if source == SIMULATOR else None


def taps_of(work: Path) -> TapChances:
    """How likely each query of a bar is tapped, by the simulator's hidden truth."""
    from stream.simulator.loop.judge import Judge

    return Judge(_truth(work)).chances


@cache
def _truth(work: Path) -> Any:
    from stream.simulator import load_truth
    from stream.simulator.writer import truth_path_of

    return load_truth(truth_path_of(source_directory(work, SIMULATOR) / LOG))


class Oracle:
    """What one who knows the simulator's truth would offer this user."""

    name = "oracle"

    def __init__(self, work: Path) -> None:
        self._oracle: Callable[..., Sequence[str]] = _truth(work).oracle

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        found = []
        for trigger in triggers:
            queries = tuple(self._oracle(trigger.video_id, trigger.user_id or None, k))
            found.append(Prediction(queries, rejected=not queries))
        return found
