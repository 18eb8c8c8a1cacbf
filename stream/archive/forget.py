"""Taking a user out of an archive: every file that names them is written anew without them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from stream.archive.card import ArchiveCorruptError, is_flushed, read_card, write_card
from stream.archive.schema import INVALID
from stream.archive.writer import ArchiveWriter

KEPT = "deletion"
"""What says that a user was forgotten stays: datasets and replays are made by it."""


def forget(
    directory: Path, user_id: str, told: Callable[[float], None] = lambda fraction: None
) -> int:
    """Take every record of a user out, and every message that is no event and holds their id; how
    many there were.

    Interrupted, it may be done again. Raises `ArchiveNotFoundError`, `ArchiveInUseError` where a
    writer is at work, `ArchiveCorruptError`.
    """
    read_card(directory)
    with ArchiveWriter(directory) as writer:
        files = [
            path
            for path in sorted(directory.rglob("*.parquet"))
            if is_flushed(path, writer.card) and _type(path) != KEPT
        ]
        removed = 0
        for number, path in enumerate(files, 1):
            removed += _without(path, user_id)
            told(number / len(files))
        writer.card = msgspec.structs.replace(writer.card, counts=_counts(directory, writer))
        write_card(directory, writer.card)
    return removed


def _without(path: Path, user_id: str) -> int:
    """Write one file anew without the user's rows, if it has any; how many."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if "user_id" not in names and "value" not in names:
                return 0
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ArchiveCorruptError(f"{path} can't be read ({error}): restore it") from None
    if "user_id" in names:
        theirs = pc.fill_null(pc.equal(table["user_id"], user_id), False)
    else:
        named = msgspec.json.encode(user_id)  # as a message would have it
        values = table["value"].to_pylist()
        theirs = pa.array([named in (value or b"") for value in values], pa.bool_())
    removed = int(pc.sum(theirs).as_py() or 0)
    if removed == 0:
        return 0
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as out:
        left = table.filter(pc.invert(theirs))
        pq.write_table(left, out, compression="zstd", write_page_checksum=True)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return removed


def _counts(directory: Path, writer: ArchiveWriter) -> dict[str, int]:
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for path in directory.rglob("*.parquet"):
        if is_flushed(path, writer.card) and not path.name.startswith("."):
            found[_type(path)] += pq.read_metadata(path).num_rows
    return dict(sorted(found.items()))


def _type(path: Path) -> str:
    parent = path.parent.parent.name
    return INVALID if parent == INVALID else parent.removeprefix("type=")
