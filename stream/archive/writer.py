"""Writing an archive: every record of the log in it exactly once, whatever kills the writer.

A flush writes the files of all partitions under temporary names, renames them, and then replaces
the card with the new positions. What a crash leaves between those steps begins at or after the
recorded position of its partition: the next writer removes it and reads those records again.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from stream.archive.card import (
    CARD,
    ArchiveCard,
    ArchiveError,
    ArchiveInUseError,
    Gap,
    read_card,
    sync_directory,
    write_card,
)
from stream.archive.schema import INVALID, event_row, event_schema, invalid_schema
from stream.events import Event, InvalidEventError, parse
from stream.logs import Log

log = structlog.get_logger(__name__)

LOCK = ".lock"
_FILE = re.compile(r"(?P<topic>.+)-(?P<partition>\d+)-(?P<first>\d{20})-(?P<last>\d{20})\.parquet")
_Key = tuple[str, str, str, int]
"""(type, date, topic, partition): the rows of one file."""


class ArchiveWriter:
    """Adds records to the archive in `directory`, which is made where there is none.

    A context manager; leaving it without an error flushes. Raises `ArchiveInUseError`,
    `ArchiveCorruptError`, and `ArchiveError` where `directory` holds something else.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
        self._ranges: dict[tuple[str, int], list[int]] = {}
        self._lock: Any = None
        self.card = ArchiveCard()
        self.pending = 0
        """Records that are not flushed yet."""

    def __enter__(self) -> ArchiveWriter:
        directory = self._directory
        if directory.exists() and not (directory / CARD).exists():
            names = {path.name for path in directory.iterdir()}
            if names - {LOCK, f".{CARD}.tmp", "events", INVALID}:
                raise ArchiveError(f"{directory} exists and is no archive: choose another place")
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = (directory / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ArchiveInUseError(
                f"another process writes to the archive {directory}: one at a time"
            ) from None
        try:
            if (directory / CARD).exists():
                self.card = read_card(directory)
            self._remove_leftovers()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._lock.close()

    def add(self, topic: str, partition: int, offset: int, timestamp: float, value: bytes) -> None:
        """Take one record in; one that is archived already is passed over."""
        try:
            event: Event | None = parse(value)
            reason = ""
        except InvalidEventError as error:
            event, reason = None, str(error)
        self.add_parsed(topic, partition, offset, timestamp, event, value, reason)

    def add_parsed(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp: float,
        event: Event | None,
        value: bytes,
        reason: str,
    ) -> None:
        """`add` for a record that was parsed before; `event` None where it is none."""
        if offset < self._next(topic, partition):
            return
        if event is None:
            row: dict[str, Any] = {"value": value, "reason": reason[:1000]}
            key = (INVALID, _date(timestamp), topic, partition)
        else:
            row = event_row(event)
            key = (event.type, _date(event.ts), topic, partition)
        row |= {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp}
        self._rows[key].append(row)
        bounds = self._ranges.setdefault((topic, partition), [offset, offset])
        bounds[1] = offset
        self.pending += 1

    def _next(self, topic: str, partition: int) -> int:
        bounds = self._ranges.get((topic, partition))
        if bounds is not None:
            return bounds[1] + 1
        return self.card.position(topic, partition) or 0

    def skip(self, gap: Gap) -> None:
        """Go on behind records that are gone; the card remembers it."""
        self.card.gaps.append(gap)
        self.card.positions.setdefault(gap.topic, {})[gap.partition] = gap.end
        write_card(self._directory, self.card)

    def flush(self) -> None:
        """Make everything added so far part of the archive."""
        if not self.pending:
            if not (self._directory / CARD).exists():
                write_card(self._directory, self.card)
            return
        touched: set[Path] = set()
        written = [self._write(key, rows, touched) for key, rows in self._rows.items()]
        for temporary, path in written:
            temporary.replace(path)
        for directory in touched:
            sync_directory(directory)
        for (topic, partition), (_, last) in self._ranges.items():
            self.card.positions.setdefault(topic, {})[partition] = last + 1
        for (type_name, *_), rows in self._rows.items():
            self.card.counts[type_name] = self.card.counts.get(type_name, 0) + len(rows)
        write_card(self._directory, self.card)
        log.info("archive_flushed", records=self.pending, files=len(written))
        self._rows.clear()
        self._ranges.clear()
        self.pending = 0

    def _write(
        self, key: _Key, rows: list[dict[str, Any]], touched: set[Path]
    ) -> tuple[Path, Path]:
        """One file, under a temporary name; that and the name it is to have."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        type_name, date, topic, partition = key
        first, last = self._ranges[topic, partition]
        if type_name == INVALID:
            directory, columns = self._directory / INVALID / f"date={date}", invalid_schema()
        else:
            directory = self._directory / "events" / f"type={type_name}" / f"date={date}"
            columns = event_schema(type_name)
        directory.mkdir(parents=True, exist_ok=True)
        touched.update((directory, directory.parent, directory.parent.parent))
        path = directory / f"{topic}-{partition}-{first:020d}-{last:020d}.parquet"
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=columns), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        return temporary, path

    def _remove_leftovers(self) -> None:
        for path in self._directory.rglob("*.parquet*"):
            found = _FILE.fullmatch(path.name)
            if path.suffix == ".tmp":
                path.unlink()
            elif found is not None:
                at = self.card.position(found["topic"], int(found["partition"]))
                if int(found["first"]) >= (at or 0):
                    log.warning("archive_leftover_removed", file=path.name)
                    path.unlink()


def archive_log(
    log_file: Log,
    out: Path,
    *,
    flush_rows: int = 200_000,
    told: Callable[[float], None] = lambda fraction: None,
) -> ArchiveCard:
    """Archive a log that lies in a file; the card.

    Its lines count as offsets of partition 0 of their topics, their `ts` as Kafka's timestamp.
    Doing it again adds nothing. Raises `LogError`, `ArchiveError`; what was read before is kept.
    """
    with ArchiveWriter(out) as writer:
        try:
            for entry in log_file.entries():
                topic = entry.event.topic if entry.event is not None else INVALID
                ts = entry.event.ts if entry.event is not None else 0.0
                writer.add_parsed(
                    topic, 0, entry.number - 1, ts, entry.event, entry.data, entry.error
                )
                if writer.pending >= flush_rows:
                    writer.flush()
                if entry.number % 1000 == 0:
                    told(log_file.fraction)
        finally:
            writer.flush()
        return writer.card


def _date(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).date().isoformat()
