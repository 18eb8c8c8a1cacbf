"""The state in plain dictionaries: the reference that the Redis store is held to."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

from msgspec import Struct

from feature_store.buckets import (
    MAX_ANCHORS,
    SLACK,
    Askers,
    BucketedQuery,
    Value,
    add_asker,
    add_counts,
    asker_of,
    bucket_prefix,
    count_increments,
    merge_neighbors,
    most_exposed,
    newest,
    rank_anchors,
    showable,
    shown_anchors,
    total_counts,
)
from feature_store.reactions import members, reactions, size_of, tired_of
from feature_store.repeats import count_change, dedupe_window, recorded_at
from feature_store.snapshot import RuleState, StateSnapshot, UserState, VideoState
from feature_store.writes import (
    BehaviorAdd,
    HistoryPut,
    Position,
    ReactionPut,
    RulePut,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.policy import StatePolicy
from onebar.records import (
    Anchor,
    Features,
    HistoryEntry,
    Pair,
    QueryCounts,
    Reactions,
    VideoText,
)

_NOTHING = QueryCounts()


class _Video(Struct):
    text: VideoText | None = None
    version: tuple[float, str] | None = None
    anchors: dict[BucketedQuery, int] = {}
    askers: dict[BucketedQuery, Askers] = {}
    counts: dict[BucketedQuery, QueryCounts] = {}
    neighbors: tuple[Anchor, ...] = ()
    fences: dict[tuple[str, int], int] = {}
    seen: set[tuple[int, Hashable]] = set()


class _User(Struct):
    history: dict[str, float] = {}
    deleted_before: float | None = None
    tapped: dict[str, float] = {}
    shown: dict[str, float] = {}


class MemoryStore:
    """Same writes, same state and same features as `FeatureStore`, but nothing ever expires."""

    def __init__(self, policy: StatePolicy) -> None:
        self.policy = policy
        self._videos: dict[str, _Video] = {}
        self._users: dict[str, _User] = {}
        self._rules: dict[str, RuleState] = {}

    def apply(self, write: Write, position: Position | None) -> None:
        """Take one write in; `position` None means that it is not fenced.

        Raises `BucketRangeError` for a time that no bucket covers.
        """
        match write:
            case VideoPut():
                self._put_video(write)
            case BehaviorAdd():
                self._add_behavior(write, position)
            case HistoryPut():
                self._put_history(write)
            case ReactionPut():
                self._put_reaction(write)
            case UserDelete():
                self._delete_user(write)
            case RulePut():
                version = (write.ts + 0.0, write.event_id)
                known = self._rules.get(write.rule_id)
                if known is None or version > known.version:
                    self._rules[write.rule_id] = RuleState(version, write.rule)

    def put_neighbors(self, video_id: str, anchors: Sequence[Anchor]) -> None:
        """Replace the video's neighbour anchors."""
        self._video(video_id).neighbors = tuple(anchors)

    def snapshot(self) -> StateSnapshot:
        """All of the state, cut to the policy's caps."""
        limit = self.policy.max_entries
        videos = {
            video_id: VideoState(
                text=video.text,
                version=video.version,
                anchors=dict(newest(video.anchors, limit)),
                askers=dict(newest(video.askers, limit)),
                counts=dict(newest(video.counts, limit)),
            )
            for video_id, video in self._videos.items()
            if video.version or video.anchors or video.counts
        }
        users = {
            user_id: UserState(
                history=dict(user.history),
                deleted_before=user.deleted_before,
                tapped=dict(user.tapped),
                shown=dict(user.shown),
            )
            for user_id, user in self._users.items()
            if user.history or user.tapped or user.shown or user.deleted_before is not None
        }
        return StateSnapshot(videos=videos, users=users, rules=dict(self._rules))

    def features(
        self,
        pairs: Sequence[Pair],
        *,
        now: float | None = None,
        max_anchors: int = MAX_ANCHORS,
        counted: bool = False,
    ) -> list[Features]:
        """What is known of each (video, user), in their order; with `counted` the videos'
        counters, too."""
        now = time.time() if now is None else now
        features = []
        for video_id, user_id in pairs:
            video = self._videos.get(video_id, _Video())
            own = shown_anchors(self._ranked(video, now))
            totals = self.counts(video_id) if counted or self.policy.tired_shows else {}
            features.append(
                Features(
                    text=video.text,
                    anchors=merge_neighbors(own, video.neighbors, max_anchors),
                    history=self.history(user_id) if user_id is not None else (),
                    counts=most_exposed(totals) if counted else (),
                    tired=tired_of(totals, self.policy),
                    reactions=self._reactions(user_id),
                )
            )
        return features

    def anchors(self, video_id: str, *, now: float | None = None) -> tuple[Anchor, ...]:
        """All anchors of a video, those that may not be shown among them."""
        video = self._videos.get(video_id, _Video())
        ranked = self._ranked(video, time.time() if now is None else now)
        return merge_neighbors(ranked, video.neighbors, limit=2**31)

    def _ranked(self, video: _Video, now: float) -> tuple[Anchor, ...]:
        limit = self.policy.max_entries
        may_be_shown = showable(newest(video.askers, limit), self.policy, now)
        return rank_anchors(newest(video.anchors, limit), self.policy, now, may_be_shown)

    def counts(self, video_id: str) -> dict[str, QueryCounts]:
        """Counts per query of a video."""
        video = self._videos.get(video_id, _Video())
        return total_counts(newest(video.counts, self.policy.max_entries))

    def history(self, user_id: str) -> tuple[HistoryEntry, ...]:
        """The user's queries, newest first; equal times by query, the greatest first."""
        history = self._users.get(user_id, _User()).history
        ordered = sorted(history.items(), key=lambda item: (item[1], item[0]), reverse=True)
        return tuple(HistoryEntry(query, ts) for query, ts in ordered)

    def _video(self, video_id: str) -> _Video:
        return self._videos.setdefault(video_id, _Video())

    def _put_video(self, write: VideoPut) -> None:
        video = self._video(write.video_id)
        version = (write.ts + 0.0, write.event_id)
        if video.version is None or version > video.version:
            video.text, video.version = write.text, version

    def _add_behavior(self, write: BehaviorAdd, position: Position | None) -> None:
        bucket = self.policy.bucket(write.ts)
        bucket_prefix(bucket)  # raises for a time that no bucket covers
        video = self._video(write.video_id)
        if position is not None:
            stream = (position.topic, position.partition)
            if position.offset <= video.fences.get(stream, -1):
                return
            video.fences[stream] = position.offset
        window = dedupe_window(recorded_at(write, position), self.policy.dedupe_window_s)
        change = count_change(video.seen, write.event_id, window)
        for query, milli in write.anchors:
            key = (bucket, query)
            counted = change
            if write.user_id:
                once = (bucket, write.user_id, write.kind, query)
                counted = count_change(video.seen, once, window)
            if counted:
                askers = video.askers.get(key, ())
                if write.user_id:
                    askers = add_asker(askers, asker_of(write.user_id, write.video_id, query))
                video.askers[key] = askers
                video.anchors[key] = max(0, video.anchors.get(key, 0) + counted * milli)
        if change:
            for key, more in count_increments(write, bucket).items():
                video.counts[key] = add_counts(video.counts.get(key, _NOTHING), more, change)
        video.anchors = self._cut(video.anchors)
        video.askers = self._cut(video.askers)
        video.counts = self._cut(video.counts)

    def _cut(self, entries: dict[BucketedQuery, Value]) -> dict[BucketedQuery, Value]:
        limit = self.policy.max_entries
        return entries if len(entries) <= limit * SLACK else dict(newest(entries, limit))

    def _reactions(self, user_id: str | None) -> Reactions:
        user = _User() if user_id is None else self._users.get(user_id, _User())
        return reactions(user.tapped, user.shown, self.policy)

    def _put_history(self, write: HistoryPut) -> None:
        user = self._users.setdefault(write.user_id, _User())
        if user.deleted_before is not None and write.ts <= user.deleted_before:
            return
        _keep_newest(user.history, write.query, write.ts, self.policy.history_size)

    def _put_reaction(self, write: ReactionPut) -> None:
        size = size_of(write, self.policy)
        if not size:
            return
        user = self._users.setdefault(write.user_id, _User())
        if user.deleted_before is not None and write.ts <= user.deleted_before:
            return
        into = user.shown if write.kind == "shown" else user.tapped
        for member in members(write):
            _keep_newest(into, member, write.ts, size)

    def _delete_user(self, write: UserDelete) -> None:
        user = self._users.setdefault(write.user_id, _User())
        ts = write.ts + self.policy.deletion_reach_s
        if user.deleted_before is None or ts > user.deleted_before:
            user.deleted_before = ts
        horizon = user.deleted_before
        user.history = {query: ts for query, ts in user.history.items() if ts > horizon}
        user.tapped = {member: ts for member, ts in user.tapped.items() if ts > horizon}
        user.shown = {member: ts for member, ts in user.shown.items() if ts > horizon}


def _keep_newest(entries: dict[str, float], name: str, ts: float, size: int) -> None:
    """Note the newest time of a name; of more than `size` the oldest goes."""
    entries[name] = max(ts + 0.0, entries.get(name, ts + 0.0))
    if len(entries) > size:
        oldest = min(entries.items(), key=lambda item: (item[1], item[0]))
        del entries[oldest[0]]
