"""The archive holds exactly the log: every record once, whatever happened while it was written."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_strategies import events
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import stream.archive.writer as writing
from onebar.cli.main import EXTRAS, app
from stream.archive.card import (
    ArchiveCard,
    ArchiveCorruptError,
    ArchiveError,
    ArchiveInUseError,
    ArchiveNotFoundError,
    Gap,
    LogGapError,
    OtherSourceError,
    write_card,
)
from stream.archive.follow import starts
from stream.archive.reader import open_archive
from stream.archive.schema import INVALID, POSITION, TYPES, event_schema
from stream.archive.writer import ArchiveWriter, archive_log
from stream.events import (
    BEHAVIORS,
    EVENT_TYPES,
    IMPRESSIONS,
    VIDEOS,
    Event,
    Impression,
    encode,
    from_object,
)
from stream.logs.files import EventLog, TruncatedLogError


def rows_of(archive: Path) -> list[dict[str, Any]]:
    """Every row of every file, with its type."""
    return [
        {**row, "type": path.parent.parent.name.removeprefix("type=")}
        for path in sorted(archive.rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def event_of(row: dict[str, Any]) -> Event:
    left_out = {*POSITION}
    plain = {k: v for k, v in row.items() if k not in left_out and v is not None}
    if "queries" in plain:
        plain["queries"] = [
            {k: v for k, v in item.items() if v is not None} for item in plain["queries"]
        ]
    return from_object(plain)


def write_lines(path: Path, lines: Sequence[bytes]) -> EventLog:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return EventLog(path)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_the_columns_are_the_fields(kind: type[Any]) -> None:
    names = event_schema(str(kind.__struct_config__.tag)).names
    assert names == [*POSITION, *kind.__struct_fields__]
    assert len(TYPES) == len(EVENT_TYPES)


def test_the_columns_have_these_types() -> None:
    """What engines and older archives rely on: a change here is another format. (A field more of a
    shown query is none: `test_older_exposures_are_read_beside_newer_ones`.)"""
    text, whole = pa.string(), pa.int32()
    shown = pa.list_(
        pa.struct([("query", text), ("position", whole), ("propensity", pa.float64())])
    )
    assert dict(zip(POSITION, event_schema("click").types, strict=False)) == {
        "topic": text, "partition": whole, "offset": pa.int64(), "timestamp": pa.float64()
    }  # fmt: skip
    assert {field.name: field.type for field in list(event_schema("click"))[4:]} == {
        "event_id": text, "ts": pa.float64(), "video_id": text, "user_id": text, "query": text,
        "position": whole, "request_id": text, "session_id": text,
    }  # fmt: skip
    assert event_schema("exposure").field("queries").type == shown
    assert event_schema("engagement").field("kind").type == text
    assert event_schema("engagement").field("value").type == pa.float64()
    assert event_schema("video").field("sensitive").type == pa.bool_()


def damaged(line: bytes) -> bytes:
    """A line that is no JSON, without the white space at its end, which is no part of it."""
    return (b"x" + line).strip(b" \t\r\n\0")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(events() | st.binary(max_size=20).filter(lambda b: b"\n" not in b).map(damaged)),
    st.integers(1, 7),
)
def test_a_log_comes_back_as_it_was(log: list[Event | bytes], flush_rows: int) -> None:
    lines = [item if isinstance(item, bytes) else encode(item) for item in log]
    lines.insert(0, b"{}")  # no event, but JSON: what a log is told by
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
                assert row["value"] == line
                assert row["reason"]
        open_archive(out).check()
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
    begins = {(VIDEOS, 0): 0, (VIDEOS, 1): 3, (BEHAVIORS, 0): 12, (IMPRESSIONS, 0): 7}
    ends = {(VIDEOS, 0): 9, (VIDEOS, 1): 4, (BEHAVIORS, 0): 20, (IMPRESSIONS, 0): 7}
    found, gaps = starts(card, begins, ends)
    assert found == {
        (VIDEOS, 0): 5, (VIDEOS, 1): 3, (BEHAVIORS, 0): 12, (IMPRESSIONS, 0): 7
    }  # fmt: skip
    # A partition that came later had records too; a topic never archived begins where it does.
    assert gaps == [Gap(VIDEOS, 1, 0, 3), Gap(BEHAVIORS, 0, 10, 12)]
    with pytest.raises(LogGapError, match="made anew"):
        starts(card, begins, {**ends, (VIDEOS, 0): 4})
    del begins[VIDEOS, 0], ends[VIDEOS, 0]
    with pytest.raises(LogGapError, match=r"onebar\.videos, partition 0 is gone"):
        starts(card, begins, ends)


def test_where_an_empty_partition_began_is_noted(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        writer.begin({(VIDEOS, 0): 0, (VIDEOS, 1): 4})
    card = open_archive(tmp_path / "a").card
    assert card.positions == {VIDEOS: {0: 0, 1: 4}}
    begins = {(VIDEOS, 0): 6, (VIDEOS, 1): 4}
    assert starts(card, begins, begins)[1] == [Gap(VIDEOS, 0, 0, 6)]


def test_offsets_that_are_no_records_are_passed(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(3))
        writer.flush({(IMPRESSIONS, 0): 5, (VIDEOS, 0): 2})
        writer.flush({(IMPRESSIONS, 0): 1})
    assert open_archive(tmp_path / "a").card.positions == {IMPRESSIONS: {0: 5}, VIDEOS: {0: 2}}


def test_files_without_their_card_are_not_touched(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(9))
    (tmp_path / "a" / "archive.json").unlink()
    before = rows_of(tmp_path / "a")
    with pytest.raises(ArchiveCorruptError, match="restore it"), ArchiveWriter(tmp_path / "a"):
        pass
    assert rows_of(tmp_path / "a") == before


def test_an_archive_is_of_one_log(tmp_path: Path) -> None:
    lines = [encode(event) for event in impressions(6)]
    one = write_lines(tmp_path / "one.jsonl", lines[:3])
    assert archive_log(one, tmp_path / "a").counts == {"impression": 3}
    write_lines(tmp_path / "one.jsonl", lines)  # it has grown
    assert archive_log(one, tmp_path / "a").counts == {"impression": 6}
    other = write_lines(tmp_path / "other.jsonl", lines[3:])
    with pytest.raises(OtherSourceError, match=r"other\.jsonl"):
        archive_log(other, tmp_path / "a")
    with pytest.raises(OtherSourceError, match="a log file"), ArchiveWriter(tmp_path / "a") as w:
        w.of_topics("")
    with ArchiveWriter(tmp_path / "b") as writer:
        writer.of_topics("shop.")
    with pytest.raises(OtherSourceError, match=r"'shop\.'"), ArchiveWriter(tmp_path / "b") as w:
        w.of_topics("")
    with pytest.raises(OtherSourceError, match=r"'shop\.'"):
        archive_log(one, tmp_path / "b")


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupted_flush_may_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    def interrupt(directory: Path, card: ArchiveCard) -> None:
        if written:
            write_card(directory, card)
        raise KeyboardInterrupt

    with ArchiveWriter(tmp_path / "a") as writer:
        writer.flush()
        add_all(writer, impressions(5))
        with monkeypatch.context() as patch:
            patch.setattr(writing, "write_card", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.flush()
    assert open_archive(tmp_path / "a").card.counts == {"impression": 5}
    open_archive(tmp_path / "a").check()


def test_large_messages_are_flushed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FLUSH_BYTES", 1000)
    with ArchiveWriter(tmp_path / "a") as writer:
        writer.add(BEHAVIORS, 0, 0, 0.0, b"x" * 999)
        assert not writer.full(10)
        assert writer.full(1)
        writer.add(BEHAVIORS, 0, 1, 0.0, b"x")
        assert writer.full(10)
        writer.flush()
        assert not writer.full(1)


@pytest.mark.parametrize("timestamp", [-0.001, 1.7e15, 1e300])
def test_a_timestamp_that_no_clock_shows_stops_nothing(tmp_path: Path, timestamp: float) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        writer.add(BEHAVIORS, 0, 0, timestamp, b"\xff\x00")
    [row] = rows_of(tmp_path / "a")
    assert (row["value"], row["timestamp"]) == (b"\xff\x00", timestamp)


def test_the_day_ends_at_midnight(tmp_path: Path) -> None:
    late = Impression(event_id="late", ts=86_400 - 1e-7, video_id="v")  # nearer than a microsecond
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, [late])
    assert open_archive(tmp_path / "a").days() == [date(1970, 1, 1)]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(9))
    opened = open_archive(tmp_path / "a")
    opened.check()
    path = sorted((tmp_path / "a").rglob("*.parquet"))[1]
    data = path.read_bytes()
    at = data.index(b"impressions")  # the topic, in a page
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    else:
        path.unlink()
    expected = "expected 9" if damage == "missing" else path.name
    with pytest.raises(ArchiveCorruptError, match=expected):
        opened.check()


def test_what_a_writer_is_about_to_flush_is_not_counted(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as writer:
        add_all(writer, impressions(3))
        writer.flush()
        card = (tmp_path / "a" / "archive.json").read_bytes()
        add_all(writer, impressions(9))
        writer.flush()
    (tmp_path / "a" / "archive.json").write_bytes(card)  # as a kill before it leaves things
    open_archive(tmp_path / "a").check()


def test_the_command_archives_a_log_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [*map(encode, impressions(5)), b"poison"])
    arguments = ["archive", "--out", str(tmp_path / "a"), "--json"]
    for added in (6, 0):
        result = CliRunner().invoke(app, [*arguments, "--log", str(tmp_path / "log.jsonl")])
        assert result.exit_code == 0, result.output
        assert msgspec.json.decode(result.stdout) == {
            "path": str(tmp_path / "a"),
            "added": added,
            "counts": {"impression": 5, "invalid": 1},
            "gaps": [],
        }
    assert CliRunner().invoke(app, [*arguments, "--check"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--check", "--follow"]).exit_code == 2


def test_a_command_without_pyarrow_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError) as told, ArchiveWriter(tmp_path / "a"):
        pass
    assert EXTRAS[str(told.value.name)] == "archive"
    assert not (tmp_path / "a").exists()
