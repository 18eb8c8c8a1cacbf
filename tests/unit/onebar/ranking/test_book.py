"""Known queries are found by the words of the evidence, in the user's way first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.ranking.book import Book, BookError, keys_of
from onebar.ranking.habits import Habits

WORDS = ("red", "trail", "shoes", "lamp", "cheap", "tent", "kids")
QUERIES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join)


@given(
    st.dictionaries(QUERIES, st.integers(1, 50), max_size=12),
    st.dictionaries(st.sampled_from(WORDS), st.floats(0.5, 2), max_size=3),
    st.dictionaries(st.sampled_from(WORDS), st.floats(0, 1), max_size=3),
    st.integers(1, 5),
)
def test_what_is_found_shares_a_word_with_the_evidence(
    counts: dict[str, int], evidence: dict[str, float], habits: dict[str, float], most: int
) -> None:
    keys = {key: w for word, w in evidence.items() for key in keys_of(word)}
    book = Book.of(counts)
    every = book.find(keys, habits, 1000)
    assert {query for query, _ in every} == {
        query for query in counts if not keys_of(query).isdisjoint(keys)
    }
    assert book.find(keys, habits, most) == every[:most]
    scores = [score for _, score in every]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


@given(
    st.dictionaries(QUERIES, st.integers(1, 50), max_size=12),
    st.dictionaries(QUERIES, st.integers(1, 50), max_size=12),
)
def test_two_books_are_one_of_all_that_was_asked(a: dict[str, int], b: dict[str, int]) -> None:
    one, other = Book.of(a, Habits(("cheap ",), ())), Book.of(b, Habits((), (" kids",)))
    joined = one.joined(other)
    assert len(joined) == len(a.keys() | b.keys())
    assert all(joined.count(query) == a.get(query, 0) + b.get(query, 0) for query in {*a, *b})
    assert (joined.habits.first, joined.habits.last) == ({"cheap "}, {" kids"})
    assert sum(joined.habits.shares.values()) == pytest.approx(1)
    evidence = {key: 1.0 for word in WORDS for key in keys_of(word)}
    back = other.joined(one).find(evidence, {}, 99)
    assert back == joined.find(evidence, {}, 99)


def test_a_habit_tells_between_two_that_fit_alike() -> None:
    book = Book.of({"cheap lamp": 1, "kids lamp": 1})
    [key] = keys_of("lamp")
    for word in ("cheap", "kids"):
        [habit] = keys_of(word)
        assert book.find({key: 1.0}, {habit: 0.6}, 2)[0][0] == f"{word} lamp"
    assert book.count("cheap lamp") == book.base_count("cheap lamp") == 1
    assert book.count("unknown") == book.base_count("unknown") == 0


def test_what_is_put_in_many_ways_is_found_once() -> None:
    habits = Habits(("cheap ", "best "), (" near me",))
    book = Book.of({"cheap lamp": 2, "best lamp": 1, "lamp near me": 4, "red tent": 1}, habits)
    assert [base for base, _ in book.find({"lamp": 1.0}, {}, 9)] == ["lamp"]
    assert (book.count("lamp"), book.base_count("lamp"), len(book)) == (0, 7, 4)
    assert book.habits.apart("best lamp near me") == ("lamp", ("best ", " near me"))


def test_a_file_is_read_as_it_was_written_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "queries.bin"
    book = Book.of({"red lamp": 3, "trail shoes": 1})
    book.save(path)
    read = Book.load(path)
    assert (read.digest, len(read), read.count("red lamp")) == (book.digest, 2, 3)
    assert read.habits.shares == book.habits.shares
    assert read.find({"lamp": 1.0}, {}, 9) == book.find({"lamp": 1.0}, {}, 9)
    file = msgspec.msgpack.decode(path.read_bytes())
    for part in ("counts", "starts", "places", "base_of"):
        for broken in (file[part][:-4], b"\x7f" * len(file[part])):
            if part == "counts" and len(broken) == len(file[part]):
                continue
            path.write_bytes(msgspec.msgpack.encode({**file, part: broken}))
            with pytest.raises(BookError):
                Book.load(path)
    path.write_bytes(b"?")
    with pytest.raises(BookError, match="holds no queries"):
        Book.load(path)


def test_an_empty_book_finds_nothing() -> None:
    assert Book.of({}).find({"lamp": 1.0}, {"cheap": 1.0}, 4) == []
