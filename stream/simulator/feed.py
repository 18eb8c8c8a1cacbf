"""The feed: which videos it may show, and which comes next for a user."""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Callable
from itertools import accumulate

from stream.simulator.policy import Shelf
from stream.simulator.texts.wording import Intent
from stream.simulator.users import Session

REFRESH = 256
"""Impressions after which what everybody watches is looked at anew."""


class FeedVideo:
    """A video the feed may show, and what is hidden about it."""

    __slots__ = ("appeal", "category", "intent", "sensitive", "shelf", "video_id")

    def __init__(
        self,
        video_id: str,
        intent: Intent,
        appeal: float,
        sensitive: bool,
        category: str | None,
        shelf: Shelf,
    ) -> None:
        self.video_id = video_id
        self.intent = intent
        self.appeal = appeal
        self.sensitive = sensitive
        self.category = category
        self.shelf = shelf


OLDEST = 8
"""With a head, of so many oldest videos the one with the least appeal goes: hits stay."""


class Feed:
    """The newest `most` videos about `things` things; `rand` gives numbers in [0, 1).

    With a `head` videos are shown in proportion to their appeal, whatever the reason, and what has
    much of it stays for long. Without one each is about as seldom as the other.
    """

    def __init__(
        self, most: int, things: int, rand: Callable[[], float], *, head: bool = False
    ) -> None:
        self._most = most
        self._head = head
        self._rand = rand
        self._active: deque[FeedVideo] = deque()
        self._about: list[list[FeedVideo]] = [[] for _ in range(things)]
        self._shown = 0
        self._popular_at = -1
        self._popular: list[FeedVideo] = []
        self._weights: list[float] = []

    def add(self, video: FeedVideo) -> None:
        """A new one; the oldest goes where there are too many."""
        self._active.append(video)
        self._about[video.intent.product.index].append(video)
        if len(self._active) > self._most:
            at = 0
            if self._head:
                oldest = range(min(OLDEST, len(self._active) - 1))
                at = min(oldest, key=lambda number: self._active[number].appeal, default=0)
            old = self._active[at]
            del self._active[at]
            self._about[old.intent.product.index].remove(old)

    def next_for(self, session: Session) -> FeedVideo:
        """What is shown next: not what this user just saw, as long as there is else."""
        watched = session.user.watched
        video = self._choose(session)
        for _ in range(4):
            if video.video_id not in watched:
                break
            video = self._choose(session)
        watched.append(video.video_id)
        self._shown += 1
        return video

    def _choose(self, session: Session) -> FeedVideo:
        """What the user is after, what they like, what everybody watches."""
        rand = self._rand
        draw = rand()
        wanted: list[FeedVideo] = []
        if draw < 0.4:
            wanted = self._about[session.focus]
        elif draw < 0.65:
            tastes = session.user.tastes
            wanted = self._about[tastes[int(rand() * rand() * len(tastes))]]
        if wanted and self._head:
            ends = list(accumulate(video.appeal for video in wanted))
            return wanted[bisect(ends, rand() * ends[-1], hi=len(ends) - 1)]
        if wanted:
            first = wanted[int(rand() * len(wanted))]
            second = wanted[int(rand() * len(wanted))]
            return first if first.appeal >= second.appeal else second
        if self._popular_at < 0 or self._shown - self._popular_at >= REFRESH:
            self._popular_at = self._shown
            self._popular = list(self._active)
            fresh = 1.0 / len(self._popular)
            weights = (
                video.appeal * (1.0 if self._head else 0.25 + age * fresh)
                for age, video in enumerate(self._popular)
            )
            self._weights = list(accumulate(weights))
        sums = self._weights
        return self._popular[bisect(sums, rand() * sums[-1], hi=len(sums) - 1)]
