"""What a query asks for, and how it is put: told apart by what users say all the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.words import words
from onebar.ranking.habits import MOST_WORDS, PLAIN, Habits, Style

THINGS = ("red lamp", "trail shoes", "oak table", "camping tent", "gas kettle")
HABITS = Habits(
    ("cheap ", "top rated "), (" near me", " 2026"), {PLAIN: 0.6, Style("cheap ", ""): 0.4}
)
TEXTS = st.lists(
    st.sampled_from(("cheap", "top", "rated", "lamp", "near", "me", "2026", "便宜", "台灯")),
    max_size=6,
).map(" ".join)


@given(TEXTS)
def test_base_and_style_make_the_query(query: str) -> None:
    base, style = HABITS.apart(query)
    assert f"{style.first}{base}{style.last}" == query
    assert style.first in {"", *HABITS.first}
    assert style.last in {"", *HABITS.last}
    assert base or not query


@given(st.lists(TEXTS, max_size=8))
def test_chances_are_of_what_was_seen(recent: list[str]) -> None:
    chances = HABITS.chances(tuple(recent))
    assert all(0 < chance <= 1 for chance in chances.values())
    assert sum(chances.values()) <= 1 + 1e-9
    assert {HABITS.apart(query)[1] for query in recent} <= chances.keys()


def test_a_habit_is_what_users_say_of_everything() -> None:
    users = [
        *([f"cheap {thing}" for thing in THINGS] for _ in range(6)),
        *([f"{thing} near me" for thing in THINGS] for _ in range(6)),
        *(list(THINGS) for _ in range(12)),
    ]
    known = Habits.of(users)
    assert (known.first, known.last) == ({"cheap "}, {" near me"})
    assert known.shares[PLAIN] == 0.5
    assert known.apart("cheap garden gnome") == ("garden gnome", Style("cheap ", ""))
    mine = known.chances(("cheap lamp", "cheap tent", "cheap sofa"))
    assert max(mine, key=lambda style: mine[style]) == Style("cheap ", "")
    # Too few for it to be one: it may name somebody.
    assert not Habits.of(users[:4]).first


def test_words_of_one_thing_are_no_habit() -> None:
    """A few users ask for nothing else, but most who say it ask for other things, too."""
    only = [[f"trail shoes {more}" for more in ("red", "blue", "wide")] for _ in range(6)]
    others = [["trail shoes", *THINGS] for _ in range(60)]
    assert "trail " not in Habits.of([*only, *others]).first


def test_an_affix_is_joined_as_it_was_written() -> None:
    """Chinese has no spaces."""
    known = Habits(("便宜的",), ())
    base, style = known.apart("便宜的台灯")
    assert (base, style.first) == ("台灯", "便宜的")


@given(
    st.lists(st.sampled_from(("a", "bb", "c-d", "near", "me", "皮划艇")), min_size=1, max_size=6),
    st.sets(st.sampled_from(("a ", "a bb ", "bb ", "near me "))),
    st.sets(st.sampled_from((" me", " near me", " bb", "艇"))),
)
def test_the_longest_habits_at_both_ends_are_told_apart(
    said: list[str], begins: set[str], ends: set[str]
) -> None:
    query = " ".join(said)
    found = words(query)
    most = min(MOST_WORDS, len(found) - 1)
    starts = [query[: found[many].start] for many in range(1, most + 1)]
    finishes = [query[found[-many - 1].end :] for many in range(1, most + 1)]
    first = max((one for one in starts if one in begins), key=len, default="")
    last = max((one for one in finishes if one in ends), key=len, default="")
    if len(first) + len(last) >= len(query):
        last = ""
    base = query[len(first) : len(query) - len(last)]
    assert Habits(begins, ends).apart(query) == (base, Style(first, last))
