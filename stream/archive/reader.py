"""Reading an archive: what is in it and where."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from msgspec import Struct

from stream.archive.card import ArchiveCard, read_card


class Archive(Struct, frozen=True):
    """An opened archive."""

    path: Path
    card: ArchiveCard

    def table_glob(self, type_name: str) -> str | None:
        """The files of an event type, for any engine that reads Parquet by hive partitions; None
        where there are none."""
        directory = self.path / "events" / f"type={type_name}"
        found = next(directory.glob("date=*/*.parquet"), None)
        return None if found is None else str(directory / "*" / "*.parquet")

    def days(self) -> list[date]:
        """The UTC days of which there are events, in order."""
        names = {path.name for path in (self.path / "events").glob("type=*/date=*")}
        return sorted(date.fromisoformat(name.removeprefix("date=")) for name in names)


def open_archive(path: Path) -> Archive:
    """The archive at `path`. Raises `ArchiveNotFoundError`, `ArchiveCorruptError`."""
    return Archive(path, read_card(path))
