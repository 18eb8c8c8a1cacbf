"""The people: lasting tastes and ways of wording, passing sessions."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

from stream.simulator.config import SimulatorConfig
from stream.simulator.texts.lexicon import Lexicon
from stream.simulator.texts.wording import Traits, Wording

SEEN_LIMIT = 12
"""Things per user whose last wording the logging policy remembers."""
WATCHED_LIMIT = 40
PASSED_OVER_LIMIT = 256


class User:
    """One person. `traits` and `tastes` are hidden; `seen` and `last` are in the log."""

    __slots__ = ("last", "passed_over", "seen", "skew_s", "tastes", "traits", "user_id", "watched")

    def __init__(
        self, user_id: str, traits: Traits, tastes: tuple[int, ...], skew_s: float = 0.0
    ) -> None:
        self.user_id = user_id
        self.traits = traits
        self.tastes = tastes
        """Products they care for, dearest first."""
        self.seen: dict[int, Wording] = {}
        self.last: Wording | None = None
        self.watched: deque[str] = deque(maxlen=WATCHED_LIMIT)
        """Videos lately shown to them: a feed does not repeat itself."""
        self.skew_s = skew_s
        """How far the clock of their device is ahead."""
        self.passed_over: dict[str, int] = {}
        """How often a query was shown to them lately, and not tapped; filled where they tire."""

    def pass_over(self, shown: Iterable[str], tapped: str | None) -> None:
        """A bar that was shown to them: what they did not tap, they have seen once more."""
        for text in shown:
            times = self.passed_over.pop(text, 0)
            if text != tapped:
                self.passed_over[text] = times + 1
        while len(self.passed_over) > PASSED_OVER_LIMIT:
            del self.passed_over[next(iter(self.passed_over))]

    def remember(self, wording: Wording) -> None:
        """A search or a click, as the log shows it."""
        self.seen.pop(wording.product, None)
        self.seen[wording.product] = wording
        if len(self.seen) > SEEN_LIMIT:
            del self.seen[next(iter(self.seen))]
        self.last = wording


def make_user(config: SimulatorConfig, lexicon: Lexicon, user_id: str) -> User:
    """The user of an id: the same one in every run of the same seed, course and language."""
    rand = random.Random(f"{config.course_seed}:{config.lang}:user:{user_id}").random
    traits = Traits(
        synonym=rand(),
        phrasing=int(rand() < 0.3),
        modifier=rand(),
        modifies=rand() < config.modifier_users,
    )
    # A taste is a category first: who buys a tent soon looks at sleeping bags.
    products = lexicon.products
    tastes: list[int] = []
    while len(tastes) < 6:
        anchor = products[int(rand() * len(products))]
        near = [p.index for p in products if p.category is anchor.category]
        for index in (anchor.index, near[int(rand() * len(near))]):
            if index not in tastes:
                tastes.append(index)
        if len(tastes) >= len(products):
            break
    skew_s = 0.0
    if config.skewed_clients:
        clock = random.Random(f"{config.course_seed}:{config.lang}:clock:{user_id}").random
        if clock() < config.skewed_clients:
            skew_s = round(config.skew_s * (2 * clock() - 1), 3)
    return User(user_id, traits, tuple(tastes), skew_s)


class Session:
    """A user's visit: something on their mind, for a number of videos."""

    __slots__ = ("focus", "left", "session_id", "user")

    def __init__(self, session_id: str, user: User, focus: int, left: int) -> None:
        self.session_id = session_id
        self.user = user
        self.focus = focus
        self.left = left
