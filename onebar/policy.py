"""The numbers that decide what state is kept and how long: one record, passed down."""

from __future__ import annotations

from msgspec import Struct

HOUR = 3600.0
DAY = 24 * HOUR


MAX_SHOWABLE_USERS = 8
"""Users told apart per (time bucket, query): enough for any threshold, so that it can be changed
without building the state anew."""


class StatePolicy(Struct, frozen=True):
    """Caps, decay and lifetimes of the state.

    Anchors and counters are kept per (time bucket, query) as exact integers, so adding is
    commutative *and* associative, and the newest `max_entries` (bucket, query) pairs are the same
    in whatever order events came: a pair that falls out can never come back (the set of pairs only
    grows), so nothing that counts is lost by cutting as we go. Exponential decay is applied on
    reading, by bucket (forward decay, Cormode et al. 2009, with quantised time).
    """

    half_life_s: float = 3 * DAY
    bucket_s: float = 6 * HOUR
    max_entries: int = 512
    """(bucket, query) pairs kept per video, separately for anchors and for counters."""
    history_size: int = 20
    """Newest queries kept per user."""
    dedupe_window_s: float = DAY
    """How long, by the store's clock, a repeated event_id is recognised."""
    video_ttl_s: float = 90 * DAY
    """Idle time after which a video's whole state goes at once."""
    user_ttl_s: float = 90 * DAY
    deletion_ttl_s: float = 400 * DAY
    """How long a deleted user's tombstone keeps older events out."""
    deletion_reach_s: float = 60.0
    """How far beyond its own time a deletion reaches: what the user's devices had stamped ahead by
    then goes as well. As far as an event's time may lie ahead at all."""
    showable_users: int = 3
    """Distinct users who must have asked or tapped a query after a video before others may be shown
    it; 1 to `MAX_SHOWABLE_USERS`."""
    showable_lookback_s: float = 30 * DAY
    """How far back they count, in whole time buckets."""
    shown_size: int = 0
    """Newest queries shown to a user that are kept, one for each time each was shown; 0 keeps
    none."""
    tapped_size: int = 0
    """Newest queries kept that a user tapped, or ordered by; 0 keeps none."""
    tired_shows: int = 0
    """Times that a query is shown under a video, and tapped by nobody, from which all are tired of
    it there; 0: nobody ever is."""
    tired_user_shows: int = 0
    """Times that a query is shown to a user, under whatever video, since they last tapped it, from
    which they are tired of it; 0: never."""

    def bucket(self, ts: float) -> int:
        """The time bucket of an event at `ts` (UTC epoch seconds, >= 0)."""
        return int(ts // self.bucket_s)


class RepertoirePolicy(Struct, frozen=True):
    """Which queries are of the repertoire: under some video others may be shown them, and over all
    videos they were shown `exposures` times and tapped at `click_rate` of them at least; of more
    than `size` those tapped most."""

    exposures: int = 20
    click_rate: float = 0.02
    size: int = 100_000
