"""The product's state against the second fold of the same log."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import convert
from second_fold import Come, Limits, fold

from feature_store.snapshot import StateSnapshot
from onebar.evidence.text import clean_video
from onebar.policy import MAX_SHOWABLE_USERS, StatePolicy
from onebar.records import TEXT_FIELDS, VideoText
from stream.kafka.records import Record


def second(records: Sequence[Record], policy: StatePolicy) -> dict[str, object]:
    """What the second fold makes of the records, to be compared with `first`."""
    limits = Limits(
        future_s=policy.deletion_reach_s,
        window_s=policy.dedupe_window_s,
        pairs=policy.max_entries,
        history=policy.history_size,
    )
    come = fold(records, limits)
    behind = {
        video: {pair: min(len(users), MAX_SHOWABLE_USERS) for pair, users in of.items()}
        for video, of in come.users.items()
    }
    return {**come._asdict(), "texts": _cleaned(come), "users": behind}


def first(state: StateSnapshot) -> dict[str, object]:
    """The product's state in the plain values of the second fold; of the users behind a tie how
    many there are, as far as they are counted."""
    videos, users = state.videos, state.users
    up = {v: kept.text for v, kept in videos.items() if kept.text and not kept.text.removed}
    return Come(
        texts={v: _fields(text) for v, text in up.items()},
        sensitive={v for v, text in up.items() if text.sensitive},
        versions={v: kept.version for v, kept in videos.items() if kept.version},
        ties={v: kept.anchors for v, kept in videos.items() if kept.anchors},
        users={
            v: {pair: len(of) for pair, of in kept.askers.items()}  # type: ignore[misc]
            for v, kept in videos.items()
            if kept.askers
        },
        counts={
            v: {pair: (c.exposures, c.clicks, c.engagements) for pair, c in kept.counts.items()}
            for v, kept in videos.items()
            if kept.counts
        },
        histories={u: kept.history for u, kept in users.items() if kept.history},
        horizons={
            u: kept.deleted_before for u, kept in users.items() if kept.deleted_before is not None
        },
        rules={rule: kept.version for rule, kept in state.rules.items()},
    )._asdict()


def _cleaned(come: Come) -> dict[str, dict[str, str]]:
    """The page says that texts are cleaned, not how: that is the one thing the folds share."""
    return {v: _fields(clean_video(convert(texts, VideoText))) for v, texts in come.texts.items()}


def _fields(text: VideoText) -> dict[str, str]:
    return {name: value for name in TEXT_FIELDS if (value := getattr(text, name))}
