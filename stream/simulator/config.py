"""What a simulated feed is made from: one record, every knob in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from onebar.errors import UsageError

Lang = Literal["en", "zh"]
LANGS: tuple[Lang, ...] = ("en", "zh")
DEFAULT_START_TS = 1_767_571_200.0
"""2026-01-05T00:00:00Z: fixed, so that a log's bytes do not depend on when it was written."""


class SimulatorConfigError(UsageError, ValueError):
    """A configuration that describes no world. The text names the field."""


class SimulatorConfig(Struct, frozen=True, kw_only=True):
    """A world and how much of it is written. Same config, same bytes.

    Shares and rates are probabilities in [0, 1]. None for `videos`, `users` or `active_videos`
    derives them from `events`.
    """

    seed: int = 1
    lang: Lang = "en"
    events: int = 100_000
    videos: int | None = None
    """Videos uploaded over the whole log; default one in 20 events."""
    users: int | None = None
    """Users; default one in 80 events, between 40 and 50,000."""
    active_videos: int | None = None
    """Videos the feed still shows at any time; default a fifth of all, 40 to 5,000."""
    start_ts: float = DEFAULT_START_TS
    days: float = 7.0

    # What videos are like.
    sensitive_share: float = 0.05
    sensitive_flagged: float = 0.3
    """Of the sensitive videos, those that come with the flag."""
    sensitive_flagged_later: float = 0.5
    """Of the others, those that moderation flags after 1 to 8 hours (a second `video` event)."""
    misleading_share: float = 0.15
    """Videos whose title speaks of something else and whose subject only M or A tell."""
    clear_title_share: float = 0.35
    item_title_share: float = 0.4
    empty_caption_share: float = 0.12
    summary_share: float = 0.5
    summary_late: float = 0.3
    """Of the summaries, those that come 2 to 10 hours after the upload, as offline ones do."""
    facet_noise: float = 0.2
    """How often a mentioned attribute or use is not the one the video is about."""
    misspelling_rate: float = 0.08

    # What users are like.
    dialect_strength: float = 0.86
    """How often a user calls a thing by the name they prefer."""
    phrasing_strength: float = 0.9
    modifier_users: float = 0.75
    """Users with a habitual modifier ('cheap …'); the others add none."""
    modifier_rate: float = 0.75
    """How often those add it."""
    search_rate: float = 0.12
    """Searches after a video, an impression."""
    search_offtopic: float = 0.35
    """Of those, the ones that have nothing to do with the video."""
    session_search: float = 0.7
    """Sessions that open with a search."""
    typo_rate: float = 0.03
    click_gain: float = 1.0
    """Multiplies every click probability."""
    deletion_rate: float = 0.002
    """Users who have themselves deleted, a session."""

    # The policy that chose the exposed queries of the log.
    slots: int = 6
    """Queries in the bar."""
    mix_extract: float = 0.5
    """Slots filled by composing a wording from terms the video's text mentions."""
    mix_pool: float = 0.25
    """Slots filled with others' searches that share terms with the video's text."""
    mix_anchor: float = 0.1
    """Slots filled from what was searched and clicked under the same video."""
    """What is left of 1 is exploration: recent queries of the category or of anybody."""

    # What public logs have besides. With these defaults a world is what it was without them.
    video_zipf: float = 0.0
    """Exponent of the head of videos: the r-th most shown is shown as 1/r^s of the first. About 1
    in public logs; 0 is the world without a head."""
    query_zipf: float = 0.0
    """The same for the things that videos and searches are about; 0 is a mild 1/(r + 12)."""
    fatigue: float = 0.0
    """By what part each time a user saw a query lately without tapping it makes a tap less
    likely."""
    new_things: float = 0.0
    """Things whose names nobody has heard before: words that no lexicon has."""
    shift_day: float = 0.0
    """Days after the start at which the trend shifts; 0 never. The new things come up only then,
    and lead."""
    shift: float = 0.5
    """Things whose popularity is another after the shift."""
    skewed_clients: float = 0.0
    """Users whose device has a wrong clock: what it stamps (searches, exposures, clicks,
    engagements) is as early or late as that. Impressions are stamped by the feed's servers."""
    skew_s: float = 300.0
    """By how much at most, early or late (seconds)."""
    course: int = 0
    """Another number: other videos and other people of the same things, by their same names."""

    def check(self) -> None:
        """Raises `SimulatorConfigError` for values that describe no world."""
        if self.lang not in LANGS:
            raise SimulatorConfigError(f"lang must be one of {', '.join(LANGS)}, not {self.lang!r}")
        least = {"events": 1, "slots": 1, "seed": 0, "course": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SimulatorConfigError(
                    f"{name} must be at least {bound}, not {getattr(self, name)}"
                )
        for name in ("videos", "users", "active_videos"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SimulatorConfigError(f"{name} must be at least 1, not {value}")
        if self.slots > 100:
            raise SimulatorConfigError(f"slots must be at most 100, not {self.slots}")
        if not 0 < self.days <= 3650:
            raise SimulatorConfigError(f"days must be between 0 and 3650, not {self.days}")
        if not 0 <= self.start_ts <= 2**33 - (self.days + 1) * 86400:
            raise SimulatorConfigError(f"start_ts is no UTC epoch second: {self.start_ts}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise SimulatorConfigError(
                    f"{name} is a share of 0 to 1, not {getattr(self, name)}"
                )
        if self.mix_extract + self.mix_pool + self.mix_anchor > 1 + 1e-9:
            raise SimulatorConfigError("mix_extract + mix_pool + mix_anchor must be at most 1")
        for name in ("click_gain", "shift_day", "skew_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SimulatorConfigError(f"{name} must not be negative: {getattr(self, name)}")
        for name in ("video_zipf", "query_zipf"):
            if not 0 <= getattr(self, name) <= 3:
                raise SimulatorConfigError(
                    f"{name} is an exponent of 0 to 3, not {getattr(self, name)}"
                )

    @property
    def course_seed(self) -> str:
        """What all but the things and their names hang on."""
        return f"{self.seed}.{self.course}" if self.course else str(self.seed)

    @property
    def shift_ts(self) -> float | None:
        """When the trend shifts (UTC epoch seconds); None where it never does."""
        return self.start_ts + self.shift_day * 86400 if self.shift_day else None

    @property
    def video_count(self) -> int:
        return self.videos if self.videos is not None else max(8, self.events // 20)

    @property
    def user_count(self) -> int:
        return self.users if self.users is not None else min(50_000, max(40, self.events // 80))

    @property
    def active_count(self) -> int:
        if self.active_videos is not None:
            return self.active_videos
        return min(5000, max(40, self.video_count // 5))

    @property
    def end_ts(self) -> float:
        """No event is later than this (UTC epoch seconds)."""
        return self.start_ts + self.days * 86400


_NO_SHARES = frozenset(
    ("start_ts", "days", "click_gain", "video_zipf", "query_zipf", "shift_day", "skew_s")
)
LATER = (
    *("video_zipf", "query_zipf", "fatigue", "new_things", "shift_day", "shift"),
    *("skewed_clients", "skew_s", "course"),
)
"""What worlds did not have at first: not written where it is as it was."""
_SHARES = tuple(
    name
    for name, default in zip(
        SimulatorConfig.__struct_fields__[-len(SimulatorConfig.__struct_defaults__) :],
        SimulatorConfig.__struct_defaults__,
        strict=True,
    )
    if isinstance(default, float) and name not in _NO_SHARES
)


def config_of(values: Mapping[str, Any]) -> SimulatorConfig:
    """The config with these settings, by name; texts are read as the numbers they stand for.

    Raises `SimulatorConfigError` for a name that it does not have, or a value that is none.
    """
    unknown = sorted(set(values) - set(SimulatorConfig.__struct_fields__))
    if unknown:
        names = ", ".join(sorted(SimulatorConfig.__struct_fields__))
        raise SimulatorConfigError(f"a world has no {', '.join(unknown)}; it has {names}")
    try:
        config = msgspec.convert(dict(values), SimulatorConfig, strict=False)
    except msgspec.ValidationError as error:
        raise SimulatorConfigError(f"a world's settings: {error}") from None
    config.check()
    return config
