"""How people put things, apart from what they ask for.

Many a user begins or ends whatever they ask with the same words (*cheap …*, *… near me*). A query
is a base and a style: the words that are somebody's habit at its beginning and its end. What the
words are is told by the log: those that a good part of all who ever used them use all the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from onebar.evidence.words import words

MOST_WORDS = 3
"""Words of one affix."""
LEAST_QUERIES = 2
LEAST_SHARE = 0.25
"""Of a user's queries, from which an affix is their habit; and they are so many at least."""
LONGER = 0.8
"""An affix within a longer one is a habit only where it stands in that much more queries."""
LEAST_USERS = 5
"""With a habit, for its words to be one."""
HABITUAL = 0.15
"""Of those who ever used an affix, the share whose habit it is."""
PRIOR = 2.0
"""Queries that what all do counts, in telling what one does."""


class Style(NamedTuple):
    """What a query is put with: joined to the base as they are."""

    first: str = ""
    last: str = ""


PLAIN = Style()


class Habits:
    """The affixes that are habits, and how common each style is. Immutable."""

    def __init__(
        self, first: Iterable[str], last: Iterable[str], shares: Mapping[Style, float] | None = None
    ) -> None:
        """`shares` of all queries, by style."""
        self.first = frozenset(first)
        self.last = frozenset(last)
        self.shares = dict(shares or {PLAIN: 1.0})
        self.apart = lru_cache(maxsize=65536)(self._apart)
        self.chances = lru_cache(maxsize=4096)(self._chances)

    def _apart(self, query: str) -> tuple[str, Style]:
        """The base of a query, and its style."""
        first = last = ""
        if self.first or self.last:
            found = words(query)
            for many in range(min(MOST_WORDS, len(found) - 1), 0, -1):
                if not first and (begins := query[: found[many].start]) in self.first:
                    first = begins
                if not last and (ends := query[found[-many - 1].end :]) in self.last:
                    last = ends
        if len(first) + len(last) >= len(query):
            last = ""
        return query[len(first) : len(query) - len(last)], Style(first, last)

    def _chances(self, recent: tuple[str, ...]) -> Mapping[Style, float]:
        """How likely this user takes each style, by their newest queries and what all do; those
        that neither has are not among them."""
        own = Counter(self.apart(query)[1] for query in recent)
        many = len(recent) + PRIOR
        return {
            style: (own[style] + PRIOR * self.shares.get(style, 0.0)) / many
            for style in {*own, *self.shares}
        }

    @classmethod
    def of(cls, users: Iterable[Sequence[str]], least: int = LEAST_USERS) -> Habits:
        """What the queries of each user say, each query once; `least` users must have a habit."""
        asked = [tuple(dict.fromkeys(queries)) for queries in users]
        first, last = (_habitual(asked, side, least) for side in (0, 1))
        known = cls(first, last)
        styles = Counter(known.apart(query)[1] for queries in asked for query in queries)
        total = styles.total() or 1
        return cls(first, last, {style: many / total for style, many in sorted(styles.items())})

    def joined(self, other: Habits, share: float) -> Habits:
        """What is a habit by either; `share` of what is told of styles is the other's."""
        found = {
            style: (1.0 - share) * self.shares.get(style, 0.0)
            + share * other.shares.get(style, 0.0)
            for style in sorted({*self.shares, *other.shares})
        }
        return Habits(self.first | other.first, self.last | other.last, found)


def _habitual(asked: Sequence[Sequence[str]], side: int, least: int) -> frozenset[str]:
    """The affixes of one side that are habits."""
    used: Counter[str] = Counter()
    habitual: Counter[str] = Counter()
    for queries in asked:
        mine = Counter(chain.from_iterable(_edges(query)[side] for query in queries))
        used.update(mine.keys())
        habitual.update(_habit(mine, len(queries)))
    return frozenset(
        affix
        for affix, many in habitual.items()
        if many >= least and many >= HABITUAL * used[affix]
    )


@lru_cache(maxsize=65536)
def _edges(query: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first one, two … words with what joins them to the rest, and the last ones."""
    found = words(query)
    most = min(MOST_WORDS, len(found) - 1)
    return (
        tuple(query[: found[many].start] for many in range(1, most + 1)),
        tuple(query[found[-many - 1].end :] for many in range(1, most + 1)),
    )


def _habit(mine: Mapping[str, int], many: int) -> list[str]:
    """The affixes of a user that are their habit: none that is only a part of a longer one."""
    often = {
        affix: count
        for affix, count in mine.items()
        if count >= LEAST_QUERIES and count >= LEAST_SHARE * many
    }
    return [
        affix
        for affix, count in often.items()
        if not any(
            affix != other
            and (other.startswith(affix) or other.endswith(affix))
            and more >= LONGER * count
            for other, more in often.items()
        )
    ]
