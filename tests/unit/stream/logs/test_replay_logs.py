"""Reading logs: plain and compressed, whole and cut, resumed anywhere, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from stream.events import MAX_EVENT_BYTES, InvalidEventError, Search, encode, parse
from stream.logs.files import (
    CorruptLogError,
    EmptyLogError,
    EventLog,
    LogEntry,
    LogError,
    LogNotFoundError,
    TruncatedLogError,
    UnrecognizedLogError,
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
    assert [entry.event is not None for entry in entries] == [True, False, False, False, True]
    assert [entry.number for entry in entries] == [1, 2, 3, 5, 6]  # a blank one is passed over
    assert "nonsense" in entries[1].error
    assert entries[2].data == b"\xff\xfe"
    assert "user_id" in entries[3].error


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


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz"])
def test_bytes_that_are_damaged_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    packed = bytearray(MORE_PACKERS[suffix](lines(3)))
    packed[-12:] = b"\x55" * 12
    path.write_bytes(packed)
    with pytest.raises((CorruptLogError, TruncatedLogError)):
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
    wrapped = b'{"events": [' + lines(1).rstrip() + b"]}"
    entries, error = drain(write(tmp_path, ".jsonl", wrapped))
    assert error is None, "it is whole, and no event"
    assert [entry.event for entry in entries] == [None]


def test_elements_of_an_array_without_its_brackets_are_events(tmp_path: Path) -> None:
    rows = b",\n".join(lines(4).splitlines())
    log = write(tmp_path, ".jsonl", rows + b",\n")
    assert [entry.error for entry in log.entries()] == [""] * 4


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
        with pytest.raises(EmptyLogError):  # blank, all of it
            list(EventLog(path).entries())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000


@given(st.lists(st.binary(max_size=40), max_size=30), st.sampled_from([b"", b"{}\n", b"[", b"[{"]))
def test_any_bytes_are_read_without_another_error(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], beginning: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "log.jsonl"
    path.write_bytes(beginning + b"\n".join(chunks))
    entries, _ = drain(EventLog(path))  # raises what is no LogError
    assert all(entry.event is None for entry in entries)


@suffixes
def test_a_byte_order_mark_costs_no_line(tmp_path: Path, suffix: str) -> None:
    """Windows' editors begin a file with one."""
    entries, error = drain(write(tmp_path, suffix, b"\xef\xbb\xbf" + lines(2)))
    assert error is None
    assert [entry.event for entry in entries] == [search(0), search(1)]


def as_array(events: list[bytes]) -> bytes:
    return b"[" + b", ".join(events) + b"]"


EVENTS = [encode(search(number)) for number in range(4)]
TEXTS = {
    "lines": b"\n".join(EVENTS) + b"\n",
    "blank lines": b"\n\n" + b"\n \t\n\r\n".join(EVENTS) + b"\n\n",
    "no last end": b"\n".join(EVENTS),
    "windows": b"\xef\xbb\xbf" + b"\r\n".join(EVENTS) + b"\r\n",
    "array": as_array(EVENTS),
    "array over lines": b"[\n  " + b",\n  ".join(EVENTS) + b"\n]\n",
    "arrays on lines": as_array(EVENTS[:2]) + b"\n" + as_array(EVENTS[2:]) + b"\n",
    "pretty": b"\n".join(json.dumps(json.loads(e), indent=2).encode() for e in EVENTS),
    "pretty array": json.dumps([json.loads(e) for e in EVENTS], indent=2).encode(),
    "two on a line": EVENTS[0] + EVENTS[1] + b"\n" + EVENTS[2] + b" " + EVENTS[3] + b"\n",
    "zeros": EVENTS[0] + b"\n" + bytes(5000) + b"\n".join(EVENTS[1:]) + bytes(3000),
    "zeros between": EVENTS[0] + b"\n" + bytes(4096) + b"\n" + b"\n".join(EVENTS[1:]) + b"\n",
    "utf-16": b"\n".join(EVENTS).decode().encode("utf-16"),
    "utf-16-le": b"\n".join(EVENTS).decode().encode("utf-16-le"),
    "utf-16-be": (b"\n".join(EVENTS) + b"\n").decode().encode("utf-16-be"),
    "utf-32": as_array(EVENTS).decode().encode("utf-32"),
}
MORE_PACKERS = {
    **PACKERS,
    ".GZ": PACKERS[".jsonl.gz"],
    ".jsonl.bz2": bz2.compress,
    ".jsonl.xz": lzma.compress,
    ".log": PACKERS[".jsonl.zst"],
    "": bz2.compress,
}


@pytest.mark.parametrize("suffix", MORE_PACKERS)
@pytest.mark.parametrize("text", TEXTS)
def test_what_a_file_is_is_told_by_its_first_bytes(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"LOG{suffix}"
    path.write_bytes(MORE_PACKERS[suffix](TEXTS[text]))
    log = EventLog(path)
    log.recognize()
    entries = list(log.entries())
    assert [entry.event for entry in entries] == [search(number) for number in range(4)]
    assert log.fraction == 1.0
    for done, entry in enumerate(entries, 1):  # what is read again is never less than what is left
        rest = [found.event for found in log.entries(entry.end, entry.number)]
        assert rest == [search(number) for number in range(4 - len(rest), 4)]
        assert len(rest) >= 4 - done
    assert list(log.entries(entries[-1].end, entries[-1].number)) == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"FeedbackType,UserId,ItemId\nclick,1,2\n", "CSV"),
        ("user;item\n1;2\n".encode("utf-16"), "CSV"),
        (b"PAR1\x15\x04\x15", "Parquet"),
        (b"PK\x03\x04....", "ZIP"),
        (b"PK\x03\x04\n" + lines(3), "ZIP"),  # stored: from the second line on it is events
        (b"user\titem\n1\t2\n", "CSV"),
        (gzip.compress(gzip.compress(b"{}\n")), "compressed once more"),
        (b"7z\xbc\xaf\x27\x1c\n" + b"\0" * 40, "7z"),
        (bytes(range(1, 200)), "no text"),
        (b"<html>", "HTML"),
        (b"hello", "no JSON"),
        (
            b"log.jsonl".ljust(257, b"\0") + b"ustar".ljust(255, b"\0") + b'{"a":1}\n{"a":2}\n',
            "tar",
        ),
        (gzip.compress(b"a,b\n1,2\n" * 100_000), "CSV"),
    ],
)
def test_what_holds_no_events_is_refused_with_what_to_do(
    tmp_path: Path, data: bytes, what: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)
    with pytest.raises(UnrecognizedLogError, match=what) as caught:
        EventLog(path).recognize()
    assert "docs/events.md" in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(UnrecognizedLogError):
        next(EventLog(path).entries())


def test_a_pipe_is_read_once_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    go_on = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(EVENTS[0] + b"\n")
            assert go_on.wait(30)
            pipe.write(b"\n".join(EVENTS[1:]))

    writing = threading.Thread(target=write)
    writing.start()
    log = EventLog(path)
    assert log.once
    log.recognize()
    entries = log.entries()
    first = next(entries)
    go_on.set()
    assert [first.event, *(entry.event for entry in entries)] == [search(n) for n in range(4)]
    writing.join()


def test_null_is_absent_and_half_a_character_is_replaced() -> None:
    nulls = b'{"type":"search","event_id":"e","ts":5,"user_id":"u","query":"q","video_id":null}'
    event = parse(nulls)
    assert isinstance(event, Search)
    assert event.video_id is UNSET
    half = nulls.replace(b'"q"', rb'"a\ud83d b\\ud83d \ud83d\ude00 \udc00"')
    event = parse(half)
    assert isinstance(event, Search)
    assert event.query == "a\ufffd b\\ud83d \U0001f600 \ufffd"
    with pytest.raises(InvalidEventError, match="user_id"):
        parse(nulls.replace(b'"u"', b"null"))
    with pytest.raises(InvalidEventError, match="not JSON"):
        parse(half[:-1])
