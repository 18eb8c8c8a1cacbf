"""What each event changes in the state: pure functions from events to writes.

The stream worker applies the writes to Redis, the offline fold and the training examples apply
the same ones to a `MemoryStore`: there is one meaning of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import UNSET, Struct, UnsetType

from feature_store.writes import (
    MILLI,
    BehaviorAdd,
    HistoryPut,
    ReactionPut,
    RulePut,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.evidence.text import normalize_query
from onebar.gating.rules import RuleError, check_rule
from onebar.records import TEXT_FIELDS, Rule, VideoText
from stream.events import (
    Click,
    Deletion,
    Engagement,
    EngagementKind,
    Event,
    Exposure,
    Impression,
    InvalidEventError,
    Removal,
    RuleChange,
    Search,
    Video,
)

Clean = Callable[[VideoText], VideoText]


class FoldWeights(Struct, frozen=True):
    """How much one behaviour ties its query to its video, in units of one search (> 0)."""

    search: float = 1.0
    """Typed by oneself: nobody had to show it."""
    click: float = 0.5
    """On the first query of a bar, or where no position was told: everybody looks there, and many a
    tap is for the place."""
    click_lower: float = 1.0
    """On one below it, which had to be looked for."""
    dwell: float = 0.5
    item_click: float = 2.0
    cart: float = 3.0
    order: float = 4.0

    def tap(self, lower: bool) -> float:
        """The weight of a tap, below the first query of its bar or on it."""
        return self.click_lower if lower else self.click

    def engagement(self, kind: EngagementKind) -> float:
        """The weight of an engagement of this kind."""
        weight: float = getattr(self, kind)
        return weight


LOWER = "click_lower"
DEFAULT_WEIGHTS = FoldWeights()
REMOVED = VideoText(removed=True)
"""What is kept of a video that is gone."""


def fold(event: Event, clean: Clean, weights: FoldWeights = DEFAULT_WEIGHTS) -> tuple[Write, ...]:
    """The writes of one event, none of them for an impression.

    `clean` cleans a video's text (`onebar.evidence.text.clean_video`). Queries are normalised;
    one with nothing left changes nothing.
    """
    match event:
        case Impression():
            return ()
        case Video():
            return (VideoPut(event.video_id, event.ts, event.event_id, clean(text_of(event))),)
        case Removal():
            return (VideoPut(event.video_id, event.ts, event.event_id, REMOVED),)
        case RuleChange():
            return (RulePut(event.rule_id, event.ts, event.event_id, rule_of(event)),)
        case Deletion():
            return (UserDelete(event.user_id, event.ts),)
        case Exposure():
            shown = _queries(item.query for item in event.queries)
            if not shown:
                return ()
            return (
                _add(event, event.video_id, exposures=shown),
                ReactionPut(event.user_id, event.ts, event.event_id, "shown", shown),
            )
        case Search() | Click() | Engagement():
            return _behavior(event, weights)


def rule_of(event: RuleChange) -> Rule | None:
    """The rule as it is kept; None where it is taken back. Raises `InvalidEventError`."""
    if event.action == "remove":
        return None
    try:
        return check_rule(
            Rule(
                event.rule_id,
                event.action,
                query=event.query,
                word=event.word,
                pattern=event.pattern,
                languages=tuple(event.languages),
                video_id=event.video_id,
                author=event.author,
                category=event.category,
                market=event.market,
                starts=None if event.starts is UNSET else event.starts,
                ends=None if event.ends is UNSET else event.ends,
                who=event.who,
                why=event.why,
                ts=event.ts,
            )
        )
    except RuleError as error:
        raise InvalidEventError(f"rule {event.rule_id!r}: {error}") from None


def is_lower(event: Click) -> bool:
    """Whether a tap was below the first query of its bar."""
    return event.position is not UNSET and event.position > 0


def _behavior(event: Search | Click | Engagement, weights: FoldWeights) -> tuple[Write, ...]:
    queries = _queries([event.query])
    if not queries:
        return ()
    [query] = queries
    history = HistoryPut(event.user_id, query, event.ts)
    match event:
        case Search():
            if isinstance(event.video_id, UnsetType):
                return (history,)
            return (_add(event, event.video_id, anchor=(query, weights.search)), history)
        case Click():
            # Which of the two it was is part of its kind, so that which came first is no matter.
            lower = is_lower(event)
            anchor = (query, weights.tap(lower))
            kind = LOWER if lower else event.type
            return (
                _add(event, event.video_id, anchor=anchor, clicks=queries, kind=kind),
                history,
                ReactionPut(event.user_id, event.ts, event.event_id, "tapped", queries),
            )
        case Engagement():
            anchor = (query, weights.engagement(event.kind))
            added = _add(event, event.video_id, anchor=anchor, engagements=queries, kind=event.kind)
            if event.kind != "order":
                return (added,)
            return (
                added,
                ReactionPut(event.user_id, event.ts, event.event_id, "ordered", queries),
            )


def _add(
    event: Search | Exposure | Click | Engagement,
    video_id: str,
    *,
    anchor: tuple[str, float] | None = None,
    exposures: tuple[str, ...] = (),
    clicks: tuple[str, ...] = (),
    engagements: tuple[str, ...] = (),
    kind: str = "",
) -> BehaviorAdd:
    return BehaviorAdd(
        video_id=video_id,
        ts=event.ts,
        event_id=event.event_id,
        anchors=() if anchor is None else ((anchor[0], round(anchor[1] * MILLI)),),
        exposures=exposures,
        clicks=clicks,
        engagements=engagements,
        user_id=event.user_id,
        kind=kind or event.type,
    )


def _queries(queries: Iterable[str]) -> tuple[str, ...]:
    """Normalised, each once, empty ones dropped."""
    return tuple(dict.fromkeys(filter(None, map(normalize_query, queries))))


def text_of(event: Video) -> VideoText:
    """The text of a video's event, as it came."""
    return VideoText(
        **{name: getattr(event, name) for name in TEXT_FIELDS}, sensitive=event.sensitive
    )
