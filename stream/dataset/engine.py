"""The engine that gathers a dataset: any ibis backend, and the tables that a run keeps on it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onebar.triggers import DatasetError

MEMORY = "4GB"
"""What DuckDB may hold before it spills to its file."""


ROWS = 2048
"""Rows taken from an engine at a time."""


class DatasetEngineError(DatasetError):
    """An engine that can't be had. The text says what to do."""


class Workspace:
    """Tables of one run on an ibis backend, under names of its own, gone when it ends.

    A cluster's engine keeps what is created on it, and several runs may share one.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._prefix = f"onebar_{uuid.uuid4().hex[:8]}_"
        self._kept: list[str] = []

    def read_parquet(self, files: str) -> Any:
        """The rows of these Parquet files (a glob), with the columns of all of them: later ones may
        have more."""
        known = {"duckdb": {"union_by_name": True}, "pyspark": {"mergeSchema": True}}
        return self._engine.read_parquet(files, **known.get(self._engine.name, {}))

    def keep(self, name: str, rows: Any) -> Any:
        """The rows of an expression or an Arrow table, worked out now and once."""
        full = self._prefix + name
        self._kept.append(full)
        return self._engine.create_table(full, rows)

    def drop(self) -> None:
        """Drop every table that was kept."""
        for name in self._kept:
            # What failed half way may not be there.
            with suppress(Exception):
                self._engine.drop_table(name, force=True)
        self._kept.clear()


@contextmanager
def workspace(address: str | None, scratch: Path) -> Iterator[Workspace]:
    """A workspace on the engine at an ibis address (`pyspark://`); DuckDB in a file under
    `scratch`, so that it can hold more than memory does, where None.

    Raises `DatasetEngineError`.
    """
    import ibis

    ibis.options.interactive = False
    if address is None:
        engine: Any = ibis.duckdb.connect(str(scratch / "dataset.duckdb"), memory_limit=MEMORY)
    else:
        try:
            engine = ibis.connect(address)
        except Exception as error:
            name = address.split(":", 1)[0]
            raise DatasetEngineError(
                f"no engine at {address!r} ({type(error).__name__}: {error}); an address is one "
                f"that ibis knows; its backend comes with pip install 'ibis-framework[{name}]'"
            ) from error
    tables = Workspace(engine)
    try:
        yield tables
    finally:
        if address is not None:
            tables.drop()
        engine.disconnect()


def rows_of(table: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of an ibis expression, `ROWS` in memory at a time."""
    for batch in table.to_pyarrow_batches(chunk_size=ROWS):
        yield from batch.to_pylist()
