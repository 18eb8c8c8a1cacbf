"""Reading an archive: what is in it and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

from msgspec import Struct

from stream.archive.card import ArchiveCard, ArchiveCorruptError, is_flushed, read_card
from stream.archive.schema import INVALID


class Archive(Struct, frozen=True):
    """An opened archive."""

    path: Path
    card: ArchiveCard

    def table_glob(self, type_name: str) -> str | None:
        """The files of an event type, for any engine that reads Parquet by hive partitions; None
        where there are none. They are not read here: see `check`."""
        directory = self.path / "events" / f"type={type_name}"
        found = next(directory.glob("date=*/*.parquet"), None)
        return None if found is None else str(directory / "*" / "*.parquet")

    def days(self) -> list[date]:
        """The UTC days of which there are events, in order."""
        names = {path.name for path in (self.path / "events").glob("type=*/date=*")}
        return sorted(date.fromisoformat(name.removeprefix("date=")) for name in names)

    def check(self, told: Callable[[float], None] = lambda fraction: None) -> None:
        """Read every file that the card knows, its checksums too, and count.

        Raises `ArchiveCorruptError` naming the file that can't be read, or the type of which there
        are not as many records as the card says. A writer may be at work meanwhile.
        """
        files = [path for path in sorted(self.path.rglob("*.parquet")) if self._known(path)]
        found: Counter[str] = Counter()
        for number, path in enumerate(files):
            found[_type(path)] += _rows(path)
            told((number + 1) / len(files))
        for name in sorted(found.keys() | self.card.counts.keys()):
            if found[name] != self.card.counts.get(name, 0):
                raise ArchiveCorruptError(
                    f"{self.path} has {found[name]:,} records of type {name}, expected "
                    f"{self.card.counts.get(name, 0):,}: restore what is missing"
                )

    def _known(self, path: Path) -> bool:
        return not path.name.startswith(".") and is_flushed(path, self.card)


def _type(path: Path) -> str:
    parent = path.parent.parent.name
    return INVALID if parent == INVALID else parent.removeprefix("type=")


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return sum(batch.num_rows for batch in file.iter_batches())
    except (pa.ArrowException, OSError) as error:
        raise ArchiveCorruptError(f"{path} can't be read ({error}): restore it") from None


def open_archive(path: Path) -> Archive:
    """The archive at `path`. Raises `ArchiveNotFoundError`, `ArchiveCorruptError`."""
    return Archive(path, read_card(path))
