"""Reading logs: plain and compressed, whole and cut, resumed anywhere, in bounded memory."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream.events import MAX_EVENT_BYTES, Search, encode
from stream.logs.files import (
    CorruptLogError,
    EmptyLogError,
    EventLog,
    LogEntry,
    LogError,
    LogNotFoundError,
    TruncatedLogError,
)

PLAIN: Callable[[bytes], bytes] = bytes
PACKERS = {
    ".jsonl": PLAIN,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": zstandard.ZstdCompressor().compress,
}
suffixes = pytest.mark.parametrize("suffix", PACKERS)


def search(number: int, query: str = "red shoes") -> Search:
    return Search(event_id=f"e{number}", ts=float(number), user_id="u", query=query)


def lines(count: int) -> bytes:
    return b"".join(encode(search(number)) + b"\n" for number in range(count))


def write(directory: Path, suffix: str, data: bytes) -> EventLog:
    path = directory / f"log{suffix}"
    path.write_bytes(PACKERS[suffix](data))
    return EventLog(path)


def drain(log: EventLog) -> tuple[list[LogEntry], LogError | None]:
    """All entries, and the error that ended them."""
    entries: list[LogEntry] = []
    try:
        entries.extend(log.entries())
    except LogError as error:
        return entries, error
    return entries, None


@suffixes
def test_every_event_is_read_in_order(tmp_path: Path, suffix: str) -> None:
    log = write(tmp_path, suffix, lines(50))
    entries = list(log.entries())
    assert [entry.event for entry in entries] == [search(number) for number in range(50)]
    assert [entry.number for entry in entries] == list(range(1, 51))
    assert log.fraction == 1.0


@suffixes
def test_reading_goes_on_from_any_entry(tmp_path: Path, suffix: str) -> None:
    log = write(tmp_path, suffix, lines(10))
    entries = list(log.entries())
    for done, entry in enumerate(entries, 1):
        assert list(log.entries(entry.end, entry.number)) == entries[done:]


@suffixes
def test_lines_that_are_no_events_are_told_and_passed(tmp_path: Path, suffix: str) -> None:
    bad = b'{"type": "nonsense"}\n\xff\xfe\n\n{"type": "search", "event_id": "x", "ts": 1}\n'
    log = write(tmp_path, suffix, lines(1) + bad + encode(search(9)) + b"\n")
    entries = list(log.entries())
    assert [entry.event is not None for entry in entries] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert "nonsense" in entries[1].error
    assert entries[2].data == b"\xff\xfe"
    assert "user_id" in entries[4].error


@suffixes
def test_a_line_too_long_is_one_bad_line(tmp_path: Path, suffix: str) -> None:
    long = b"x" * (3 * MAX_EVENT_BYTES) + b"\n"
    log = write(tmp_path, suffix, lines(2) + long + encode(search(2)) + b"\n")
    entries = list(log.entries())
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert "longer than" in entries[2].error
    assert entries[3].event == search(2)
    assert list(log.entries(entries[2].end, 3)) == entries[3:]


@suffixes
def test_an_empty_log_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(EmptyLogError, match="is empty"):
        list(write(tmp_path, suffix, b"").entries())


def test_an_empty_compressed_file_is_named(tmp_path: Path) -> None:
    for suffix in PACKERS:
        path = tmp_path / f"zero{suffix}"
        path.touch()
        with pytest.raises(EmptyLogError):
            list(EventLog(path).entries())


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_cut_stream_gives_what_is_good_and_then_says_so(tmp_path: Path, suffix: str) -> None:
    whole = b"".join(encode(search(n, f"query {n * 7919}")) + b"\n" for n in range(20_000))
    path = tmp_path / f"log{suffix}"
    packed = PACKERS[suffix](whole)
    path.write_bytes(packed[: len(packed) // 2])
    entries, error = drain(EventLog(path))
    assert isinstance(error, TruncatedLogError)
    assert "cut off after line" in str(error)
    seen = [entry.event for entry in entries]
    assert 1000 < len(seen) < 20_000
    assert seen == [search(n, f"query {n * 7919}") for n in range(len(seen))]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_bytes_that_are_not_compressed_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(lines(3))
    with pytest.raises(CorruptLogError, match="cannot be decompressed"):
        list(EventLog(path).entries())


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_several_compressed_members_are_one_log(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    packed = [PACKERS[suffix](encode(search(n)) + b"\n") for n in range(3)]
    path.write_bytes(b"".join(packed))
    assert [entry.event for entry in EventLog(path).entries()] == [search(n) for n in range(3)]


def test_the_last_line_may_lack_its_end_but_not_its_half(tmp_path: Path) -> None:
    log = write(tmp_path, ".jsonl", lines(2).rstrip(b"\n"))
    assert len(list(log.entries())) == 2
    log = write(tmp_path, ".jsonl", lines(2)[:-10])
    entries, error = drain(log)
    assert [entry.number for entry in entries] == [1]
    assert isinstance(error, TruncatedLogError)
    assert "middle of line 2" in str(error)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogNotFoundError, match="does not exist"):
        EventLog(tmp_path / "none.jsonl")
    with pytest.raises(LogNotFoundError, match="is a directory"):
        EventLog(tmp_path)


def test_a_log_is_known_again_also_when_it_has_grown(tmp_path: Path) -> None:
    log = write(tmp_path, ".jsonl", lines(5))
    before = log.identity()
    assert log.continues(before)
    with log.path.open("ab") as file:
        file.write(encode(search(5)) + b"\n")
    assert log.continues(before)
    log.path.write_bytes(lines(5)[:-30])
    assert not log.continues(before)
    log.path.write_bytes(lines(6)[1:])
    assert not log.continues(before)


@suffixes
def test_memory_is_bounded(tmp_path: Path, suffix: str) -> None:
    log = write(tmp_path, suffix, lines(15_000))  # 1.2 MB
    tracemalloc.start()
    try:
        assert sum(1 for _ in log.entries()) == 15_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 700_000


def test_a_zstd_bomb_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.zst"
    packer = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        for _ in range(300):
            file.write(packer.compress(b" " * 1_000_000))
        file.write(packer.flush())
    tracemalloc.start()
    try:
        seen = list(EventLog(path).entries())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen) == 1
    assert "longer than" in seen[0].error
    assert peak < 100_000_000


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_any_bytes_are_read_without_another_error(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("any") / "log.jsonl"
    data = b"\n".join(chunks)
    path.write_bytes(data)
    entries, error = drain(EventLog(path))
    assert all(entry.event is None for entry in entries)
    assert len(entries) == data.count(b"\n")
    if data == b"":
        assert isinstance(error, EmptyLogError)
    elif data.endswith(b"\n"):
        assert error is None
    else:
        assert isinstance(error, TruncatedLogError)


@suffixes
def test_a_byte_order_mark_costs_no_line(tmp_path: Path, suffix: str) -> None:
    """Windows' editors begin a file with one."""
    entries, error = drain(write(tmp_path, suffix, b"\xef\xbb\xbf" + lines(2)))
    assert error is None
    assert [entry.event for entry in entries] == [search(0), search(1)]
