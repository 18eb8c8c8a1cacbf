"""The archive holds exactly the log: every record once, whatever happened while it was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from event_strategies import events
from hypothesis import given, settings
from hypothesis import strategies as st

import stream.archive.writer as writing
from stream.archive.card import (
    ArchiveCard,
    ArchiveCorruptError,
    ArchiveError,
    ArchiveInUseError,
    ArchiveNotFoundError,
    Gap,
    LogGapError,
)
from stream.archive.follow import starts
from stream.archive.reader import open_archive
from stream.archive.schema import INVALID, POSITION, TYPES, event_schema
from stream.archive.writer import ArchiveWriter, archive_log
from stream.events import BEHAVIORS, EVENT_TYPES, VIDEOS, Event, Impression, encode, from_object
from stream.logs import EventLog, TruncatedLogError


def rows_of(archive: Path) -> list[dict[str, Any]]:
    """Every row of every file, with its type."""
    return [
        {**row, "type": path.parent.parent.name.removeprefix("type=")}
        for path in sorted(archive.rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def event_of(row: dict[str, Any]) -> Event:
    left_out = {*POSITION}
    return from_object({k: v for k, v in row.items() if k not in left_out and v is not None})


def write_lines(path: Path, lines: Sequence[bytes]) -> EventLog:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return EventLog(path)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_the_columns_are_the_fields(kind: type[Any]) -> None:
    names = event_schema(str(kind.__struct_config__.tag)).names
    assert names == [*POSITION, *kind.__struct_fields__]
    assert len(TYPES) == len(EVENT_TYPES)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(events() | st.binary(min_size=1, max_size=20).filter(lambda b: b"\n" not in b)),
    st.integers(1, 7),
)
def test_a_log_comes_back_as_it_was(log: list[Event | bytes], flush_rows: int) -> None:
    lines = [item if isinstance(item, bytes) else encode(item) for item in log]
    lines = [line for line in lines if line.strip(b"\r")] or [b"{}"]
    with TemporaryDirectory() as name:
        directory = Path(name)
        file = write_lines(directory / "log.jsonl", lines)
        out = directory / "archive"
        card = archive_log(file, out, flush_rows=flush_rows)
        rows = rows_of(out)
        assert Counter(row["type"] for row in rows if row["type"] in TYPES) == Counter(
            {name: n for name, n in card.counts.items() if name != INVALID}
        )
        found = {row["offset"]: row for row in rows}
        assert len(found) == len(rows) == len(lines)
        for number, line in enumerate(lines):
            row = found[number]
            if row["type"] in TYPES:
                assert msgspec.to_builtins(event_of(row)) == msgspec.to_builtins(
                    from_object(msgspec.json.decode(line))
                )
            else:
                assert row["value"] == line.rstrip(b"\r")
                assert row["reason"]
        # Again: nothing new.
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
        assert archive_log(file, out).counts == card.counts
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before


def impressions(count: int, start: int = 0) -> list[Impression]:
    return [
        Impression(event_id=f"e{n}", ts=86_400.0 * (n // 4), video_id=f"v{n % 3}")
        for n in range(start, start + count)
    ]


def add_all(writer: ArchiveWriter, found: Sequence[Event], partition: int = 0) -> None:
    for offset, event in enumerate(found):
        writer.add(event.topic, partition, offset, event.ts, encode(event))


@pytest.mark.parametrize("step", ["rename", "card"])
def test_a_crash_while_flushing_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    every = impressions(20)
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, every[:8])

    class CrashError(Exception):
        pass

    def crash(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        if step == "card":
            patch.setattr(writing, "write_card", crash)
        else:
            patch.setattr(Path, "replace", crash)
        with pytest.raises(CrashError), ArchiveWriter(tmp_path / "a") as writer:
            add_all(writer, every[:15])
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, every)
    rows = rows_of(tmp_path / "a")
    assert sorted(row["event_id"] for row in rows) == sorted(event.event_id for event in every)
    assert not list((tmp_path / "a").rglob("*.tmp"))
    assert writer.card.counts == {"impression": 20}


def test_partitions_are_kept_apart(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(5), partition=0)
        add_all(writer, impressions(3, start=100), partition=1)
        writer.flush()
        add_all(writer, impressions(6), partition=0)
    card = open_archive(tmp_path / "a").card
    assert card.positions == {"onebar.impressions": {0: 6, 1: 3}}
    assert card.counts == {"impression": 9}
    assert open_archive(tmp_path / "a").days() == [
        date(1970, 1, 1), date(1970, 1, 2), date(1970, 1, 26)
    ]  # fmt: skip


def test_engines_find_type_and_day_in_the_path(tmp_path: Path) -> None:
    import duckdb

    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(10))
    glob = open_archive(tmp_path / "a").table_glob("impression")
    query = f"SELECT date, count(*) FROM read_parquet('{glob}', hive_partitioning=true) GROUP BY 1"
    assert sorted(duckdb.sql(query).fetchall()) == [
        (date(1970, 1, 1), 4), (date(1970, 1, 2), 4), (date(1970, 1, 3), 2)
    ]  # fmt: skip
    assert open_archive(tmp_path / "a").table_glob("click") is None


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveNotFoundError, match="onebar archive"):
        open_archive(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(ArchiveError, match="no archive"), ArchiveWriter(other):
        pass
    with (
        ArchiveWriter(tmp_path / "a"),
        pytest.raises(ArchiveInUseError, match="another process"),
        ArchiveWriter(tmp_path / "a"),
    ):
        pass
    (tmp_path / "a" / "archive.json").write_bytes(b'{"format": 9}')
    with pytest.raises(ArchiveCorruptError, match="format 9"):
        open_archive(tmp_path / "a")
    (tmp_path / "a" / "archive.json").write_bytes(b"{")
    with pytest.raises(ArchiveCorruptError, match=r"archive\.json"), ArchiveWriter(tmp_path / "a"):
        pass


def test_a_log_that_is_cut_off_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = [encode(event) for event in impressions(5)]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines)[:-10])
    with pytest.raises(TruncatedLogError):
        archive_log(EventLog(tmp_path / "log.jsonl"), tmp_path / "a")
    assert open_archive(tmp_path / "a").card.counts == {"impression": 4}


def test_an_archive_goes_on_where_it_ended_and_tells_what_was_lost() -> None:
    card = ArchiveCard(positions={VIDEOS: {0: 5}, BEHAVIORS: {0: 10}})
    begins = {(VIDEOS, 0): 0, (VIDEOS, 1): 3, (BEHAVIORS, 0): 12}
    ends = {(VIDEOS, 0): 9, (VIDEOS, 1): 4, (BEHAVIORS, 0): 20}
    found, gaps = starts(card, begins, ends)
    assert found == {(VIDEOS, 0): 5, (VIDEOS, 1): 3, (BEHAVIORS, 0): 12}
    assert gaps == [Gap(BEHAVIORS, 0, 10, 12)]
    with pytest.raises(LogGapError, match="made anew"):
        starts(card, begins, {**ends, (VIDEOS, 0): 4})
