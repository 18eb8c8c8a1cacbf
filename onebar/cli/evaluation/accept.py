"""`onebar models promote --gate`: the slice, and the candidate before it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from onebar.process.console import Phases, progress, say

if TYPE_CHECKING:
    from onebar.evaluation.comparing.acceptance import Acceptance, Bounds
    from onebar.triggers import TriggerDataset

TEST_PART = 0.9
"""Of a slice's impressions, those that are compared on: a dataset keeps all of its test part."""


def accepted(
    current: Path,
    candidate: Path,
    *,
    dataset: Path | None,
    archive: Path | None,
    days: float,
    limit: int,
    bounds: Bounds,
    threads: int = 1,
    k: int = 8,
) -> Acceptance:
    """Compare two checkpoints on the test part of a dataset, or on an archive's last days.

    Raises `DatasetError`, `ArchiveError`, `CheckpointError`.
    """
    from onebar.evaluation.comparing.acceptance import accept
    from onebar.evaluation.predict import EnginePredictor
    from onebar.triggers import open_dataset

    with ExitStack() as stack:
        if dataset is not None:
            opened = open_dataset(dataset)
        else:
            assert archive is not None
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onebar-gate-")))
            opened = slice_of(archive, scratch / "slice", days)
        triggers = list(opened.read("test", ("click", "reject", "shown")))
        if len(triggers) > limit:
            triggers = triggers[:: -(-len(triggers) // limit)]
        old, new = (
            EnginePredictor(path, threads=threads, beam_size=max(8, k))
            for path in (current, candidate)
        )
        stack.callback(old.close)
        stack.callback(new.close)
        told = stack.enter_context(progress("comparing"))
        return accept(
            old,
            new,
            triggers,
            bounds=bounds,
            k=k,
            progress=lambda done, total: told(done / total, f"{done:,} of {total:,}"),
        )


def slice_of(
    archive: Path,
    out: Path,
    days: float,
    *,
    skip: float = 0.0,
    test: float = TEST_PART,
    valid: float = 0.0,
) -> TriggerDataset:
    """A dataset of an archive's last `days` before its last impression, or before the last `skip`
    days of it: of these nothing is read."""
    from onebar.cli.common import command_settings
    from onebar.triggers import SPLITS
    from stream.archive.reader import open_archive
    from stream.dataset.build import build_dataset
    from stream.dataset.config import DatasetConfig
    from stream.dataset.tables import COLUMNS

    opened = open_archive(archive)
    files = {name: opened.table_glob(name) for name in COLUMNS}
    last = last_impression(files["impression"]) - skip * 86400
    config = DatasetConfig(
        since=last - days * 86400,
        until=last if skip else None,
        valid=valid,
        test=test,
        policy=command_settings().policy,
    )
    with Phases() as shown:
        made = build_dataset(
            files, out, config, source={"archive": str(archive), "days": days}, told=shown
        )
    many = sum(made.size(split) for split in SPLITS)
    say(f"{many:,} impressions of the archive's last {days:g} days")
    return made


def last_impression(files: str | None) -> float:
    """When the last impression of an archive was (UTC epoch seconds). Raises `DatasetError`."""
    from glob import glob

    import pyarrow.parquet as pq

    from onebar.triggers import EmptyDatasetError

    newest = [
        column.statistics.max
        for path in glob(files or "")
        for part in [pq.ParquetFile(path).metadata]
        for group in range(part.num_row_groups)
        for at in range(part.num_columns)
        if (column := part.row_group(group).column(at)).path_in_schema == "ts"
        and column.statistics is not None
    ]
    if not newest:
        raise EmptyDatasetError("the archive has no impressions: there is no slice to take")
    return float(max(newest))
