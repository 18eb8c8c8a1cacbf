"""The dataset of a log is the same whether DuckDB or Spark gathers it.

Not part of `make test`: it wants Java and `pip install 'ibis-framework[pyspark]'`. Run it with
`pytest tests/cluster`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from onebar.triggers import SPLITS
from stream.archive.reader import open_archive
from stream.archive.writer import archive_log
from stream.dataset.build import build_dataset
from stream.dataset.config import DatasetConfig
from stream.dataset.tables import COLUMNS
from stream.events import encode
from stream.logs.files import EventLog
from stream.simulator import SimulatorConfig, simulate


def test_the_same_triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Spark puts its warehouse where it is started.
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log.jsonl"
    events = simulate(SimulatorConfig(seed=3, events=4_000, deletion_rate=0.05))
    log.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    archive_log(EventLog(log), tmp_path / "archive")
    opened = open_archive(tmp_path / "archive")
    files = {name: opened.table_glob(name) for name in COLUMNS}
    config = DatasetConfig(shown_share=0.3)
    here = build_dataset(files, tmp_path / "here", config)
    there = build_dataset(files, tmp_path / "there", config, engine="pyspark://")
    for split in SPLITS:
        found = list(here.read(split))
        assert found
        assert list(there.read(split)) == found
    assert list(there.texts()) == list(here.texts())
