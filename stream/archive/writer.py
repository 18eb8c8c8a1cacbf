"""Writing an archive: every record of the log in it exactly once, whatever kills the writer.

A flush writes the files of all partitions under temporary names, renames them, and then replaces
the card with the new positions. What a crash leaves between those steps begins at or after the
recorded position of its partition: the next writer removes it and reads those records again.
So there is always a card before there are files; files without one are never touched.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from onebar.process.files import sync
from stream.archive.card import (
    CARD,
    ArchiveCard,
    ArchiveCorruptError,
    ArchiveError,
    ArchiveInUseError,
    Gap,
    OtherSourceError,
    is_flushed,
    read_card,
    write_card,
)
from stream.archive.schema import INVALID, event_row, event_schema, invalid_schema
from stream.events import Event, InvalidEventError, parse
from stream.logs.files import Log, LogError

log = structlog.get_logger(__name__)

LOCK = ".lock"
FLUSH_BYTES = 64 * 1024 * 1024
"""Most bytes of messages in memory before a flush, however few records they are."""
MAX_REASON_CHARS = 1000
_EPOCH = date(1970, 1, 1).toordinal()
_Key = tuple[str, str, str, int]
"""(type, date, topic, partition): the rows of one file."""


class ArchiveWriter:
    """Adds records to the archive in `directory`, which is made where there is none.

    A context manager; leaving it without an error flushes. Raises `ArchiveInUseError`,
    `ArchiveCorruptError`, and `ArchiveError` where `directory` holds something else.
    A flush that was interrupted, by whatever, may be done again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
        self._ranges: dict[tuple[str, int], list[int]] = {}
        self._lock: Any = None
        self.card = ArchiveCard()
        self._bytes = 0
        self.pending = 0
        """Records that are not flushed yet."""

    def __enter__(self) -> ArchiveWriter:
        import pyarrow  # noqa: F401 - told before anything is read, not at the first flush

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
            elif next(directory.rglob("*.parquet"), None) is not None:
                raise ArchiveCorruptError(
                    f"{directory} has files of an archive but no {CARD}: restore it, or choose "
                    "another place"
                )
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

    def of_topics(self, prefix: str) -> None:
        """What follows is read from the topics with this prefix. Raises `OtherSourceError`."""
        card = self.card
        if card.log is not None or card.topic_prefix not in (None, prefix):
            raise OtherSourceError(
                f"{self._directory} is the archive of {_source(card)}; expected that of the topics "
                f"with the prefix {prefix!r}: choose another directory"
            )
        card.topic_prefix = prefix

    def of_log(self, log_file: Log) -> None:
        """What follows is read from this file, perhaps grown since. Raises `OtherSourceError`."""
        card = self.card
        if card.topic_prefix is not None or (
            card.log is not None and not log_file.continues(card.log)
        ):
            raise OtherSourceError(
                f"{self._directory} is the archive of {_source(card)}, of which {log_file.path} is "
                "no continuation: choose another directory"
            )
        card.log = log_file.identity()

    def begin(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Note where (topic, partition)s begin of which nothing is archived yet: what is deleted
        from there on, before it was archived, is a gap."""
        new = [pair for pair in offsets if self.card.position(*pair) is None]
        for topic, partition in new:
            self.card.positions.setdefault(topic, {})[partition] = offsets[topic, partition]
        if new:
            write_card(self._directory, self.card)

    def full(self, rows: int) -> bool:
        """Whether it is time to flush: `rows` records are pending, or `FLUSH_BYTES`."""
        return self.pending >= rows or self._bytes >= FLUSH_BYTES

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
            row: dict[str, Any] = {"value": value, "reason": reason[:MAX_REASON_CHARS]}
            key = (INVALID, _date(timestamp), topic, partition)
        else:
            row = event_row(event)
            key = (event.type, _date(event.ts), topic, partition)
        row |= {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp}
        self._rows[key].append(row)
        bounds = self._ranges.setdefault((topic, partition), [offset, offset])
        bounds[1] = offset
        self._bytes += len(value)
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

    def flush(self, reached: Mapping[tuple[str, int], int] | None = None) -> None:
        """Make everything added so far part of the archive.

        `reached` are offsets before which everything was added, of (topic, partition)s whose last
        offsets are no records (marks of transactions, or compacted away).
        """
        card = self._card_after(reached or {})
        if card == self.card and (self._directory / CARD).exists():
            return
        if not (self._directory / CARD).exists():
            write_card(self._directory, self.card)
        touched: set[Path] = set()
        written = [self._write(key, rows, touched) for key, rows in self._rows.items()]
        for temporary, path in written:
            temporary.replace(path)
        for directory in touched:
            sync(directory)
        write_card(self._directory, card)
        if written:
            log.info("archive_flushed", records=self.pending, files=len(written))
        empty: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
        self.card, self._rows, self._ranges, self.pending, self._bytes = card, empty, {}, 0, 0

    def _card_after(self, reached: Mapping[tuple[str, int], int]) -> ArchiveCard:
        old = self.card
        positions = {topic: dict(offsets) for topic, offsets in old.positions.items()}
        ends = {pair: last + 1 for pair, (_, last) in self._ranges.items()}
        for pair in ends.keys() | reached.keys():
            end = max(ends.get(pair, 0), reached.get(pair, 0), old.position(*pair) or 0)
            positions.setdefault(pair[0], {})[pair[1]] = end
        counts = dict(old.counts)
        for (type_name, *_), rows in self._rows.items():
            counts[type_name] = counts.get(type_name, 0) + len(rows)
        return ArchiveCard(
            topic_prefix=old.topic_prefix,
            log=old.log,
            positions=positions,
            counts=counts,
            gaps=old.gaps,
        )

    def _write(
        self, key: _Key, rows: list[dict[str, Any]], touched: set[Path]
    ) -> tuple[Path, Path]:
        """One file, under a temporary name; that and the name it is to have."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        type_name, day, topic, partition = key
        first, last = self._ranges[topic, partition]
        if type_name == INVALID:
            directory, columns = self._directory / INVALID / f"date={day}", invalid_schema()
        else:
            directory = self._directory / "events" / f"type={type_name}" / f"date={day}"
            columns = event_schema(type_name)
        directory.mkdir(parents=True, exist_ok=True)
        touched.update((directory, directory.parent, directory.parent.parent))
        path = directory / f"{topic}-{partition}-{first:020d}-{last:020d}.parquet"
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            table = pa.Table.from_pylist(rows, schema=columns)
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        return temporary, path

    def _remove_leftovers(self) -> None:
        for path in self._directory.rglob(".*.tmp"):
            path.unlink()
        for path in self._directory.rglob("*.parquet"):
            if not is_flushed(path, self.card):
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
    Doing it again adds nothing, and of a log that has grown what is new. Raises `LogError` (what
    was read before is kept), `OtherSourceError` where `out` is of another log, `ArchiveError`.
    """
    with ArchiveWriter(out) as writer:
        writer.of_log(log_file)
        try:
            for entry in log_file.entries():
                topic = entry.event.topic if entry.event is not None else INVALID
                ts = entry.event.ts if entry.event is not None else 0.0
                writer.add_parsed(
                    topic, 0, entry.number - 1, ts, entry.event, entry.data, entry.error
                )
                if writer.full(flush_rows):
                    writer.flush()
                if entry.number % 1000 == 0:
                    told(log_file.fraction)
        except LogError:
            writer.flush()
            raise
        writer.flush()
        return writer.card


def _source(card: ArchiveCard) -> str:
    if card.log is not None:
        return f"a log file of {card.log.size:,} bytes"
    return f"the topics with the prefix {card.topic_prefix!r}"


def _date(ts: float) -> str:
    """The UTC day. A timestamp that no clock shows (Kafka takes any) counts as the nearest."""
    days = int(min(max(ts, 0.0), 2.0**33 - 1) // 86_400)
    return date.fromordinal(_EPOCH + days).isoformat()
