"""A decoder is held to exactly the sequences that were added and not banned, at any moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onebar.generator.trie import Trie

END = 1
TOKEN = st.integers(2, 6) | st.sampled_from([255, 256, 65_535, 2**24 - 2])
SEQUENCE = st.lists(TOKEN, min_size=1, max_size=4).map(tuple)


def walk(trie: Trie, prefix: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    found = set()
    for token in trie.followers(prefix, END):
        if token == END:
            found.add(prefix)
        else:
            found |= walk(trie, (*prefix, token))
    return found


@given(st.sets(SEQUENCE), st.lists(st.tuples(st.booleans(), SEQUENCE)))
def test_what_can_be_walked_is_what_was_added_and_not_banned(
    begun: set[tuple[int, ...]], changes: list[tuple[bool, tuple[int, ...]]]
) -> None:
    trie, expected = Trie(begun), set(begun)
    assert walk(trie) == expected
    for add, sequence in changes:
        (trie.add if add else trie.ban)(sequence)
        (expected.add if add else expected.discard)(sequence)
        assert (sequence in trie) == add
        assert walk(trie) == expected
        assert len(trie) == len(expected)


def test_an_empty_sequence_is_none() -> None:
    trie = Trie([()])
    trie.add(())
    trie.ban(())
    assert walk(trie) == set()
    assert trie.followers((), END) == ()
