"""What a simulated log's users would tap, whatever wrote the queries: for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence

from stream.simulator.loop.reading import Reader
from stream.simulator.taps import examined, fit
from stream.simulator.truth import Truth
from stream.simulator.users import User, make_user


class Judge:
    """The hidden chance of a tap in bars of a log's videos and users."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._reader = Reader(truth.lexicon)
        self._users: dict[str, User] = {}

    def chances(self, video_id: str, user_id: str, queries: Sequence[str]) -> list[float]:
        """How likely each query of a bar, best position first, is tapped by a user whom the video
        interests, where nothing before it was: how well it fits, times how likely its place is
        looked at. 0 throughout for a sensitive video. Raises KeyError for a video or a user the
        log does not have."""
        if user_id not in self._truth.users:
            raise KeyError(user_id)
        if self._truth.videos[video_id].sensitive is not None:
            return [0.0] * len(queries)
        user = self._users.get(user_id)
        if user is None:
            user = make_user(self._truth.config, self._truth.lexicon, user_id)
            self._users[user_id] = user
        intent = self._truth.intent(video_id)
        return [
            examined(at) * fit(user, intent, self._reader.read(query, intent))
            for at, query in enumerate(queries)
        ]
