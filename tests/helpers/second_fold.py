"""What a log comes to, worked out a second time: from `docs/events.md` alone.

Nothing of the product is imported and nothing is shared with it, so that a fault of the product's
fold can't be in both. It keeps every record and counts at the end: slow, and plain to check against
the page.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

TEXTS = ("title", "caption", "author", "item_title", "ocr", "asr", "summary", "category")
NEEDED = {
    "video": ("video_id",),
    "impression": ("video_id",),
    "search": ("user_id", "query"),
    "exposure": ("video_id", "user_id", "queries"),
    "click": ("video_id", "user_id", "query"),
    "engagement": ("video_id", "user_id", "query", "kind"),
    "deletion": ("user_id",),
    "removal": ("video_id",),
    "rule": ("rule_id", "action"),
}
THOUSANDTHS = {
    "search": 1000,
    "tap on the first": 500,
    "tap below it": 1000,
    "dwell": 500,
    "item_click": 2000,
    "cart": 3000,
    "order": 4000,
}
BUCKET_S = 6 * 3600
LARGEST = 900_000

T = TypeVar("T")
Pair = tuple[int, str]
"""A time bucket and a query."""


class Kept(Protocol):
    """A record, as Kafka keeps it; `timestamp` in UTC epoch seconds."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> float: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes: ...


class Limits(NamedTuple):
    """The settings that the page names, with its values."""

    future_s: float = 60
    window_s: float = 86_400
    pairs: int = 512
    history: int = 20


class Come(NamedTuple):
    """What it comes to. What is not there is left out: no empty dictionaries inside."""

    texts: dict[str, dict[str, str]]
    """Of each video that is up, its text as it came, without empty fields."""
    sensitive: set[str]
    """Of these, those that get no queries."""
    versions: dict[str, tuple[float, str]]
    """Of each video told of, up or removed, the (`ts`, `event_id`) that stands."""
    ties: dict[str, dict[Pair, int]]
    """In thousandths of a search."""
    users: dict[str, dict[Pair, set[str]]]
    """Who is behind each tie."""
    counts: dict[str, dict[Pair, tuple[int, int, int]]]
    """Exposures, clicks, engagements."""
    histories: dict[str, dict[str, float]]
    horizons: dict[str, float]
    rules: dict[str, tuple[float, str]]
    """Of each rule told of, the (`ts`, `event_id`) that stands."""


PAGE = Limits()


def fold(records: Iterable[Kept], limits: Limits = PAGE) -> Come:
    """The state that these records come to; a record may be among them more than once."""
    log = {(r.topic, r.partition, r.offset): r for r in records}
    told: dict[str, dict[tuple[float, str], dict[str, Any]]] = defaultdict(dict)
    rules: dict[str, list[tuple[float, str]]] = defaultdict(list)
    tied: dict[tuple[str, str, str, Pair], set[int]] = defaultdict(set)
    counted: dict[tuple[str, str], set[int]] = defaultdict(set)
    counts_what: dict[tuple[str, str], tuple[int, set[Pair]]] = {}
    asked: dict[str, dict[str, float]] = defaultdict(dict)
    horizons: dict[str, float] = {}

    for record in log.values():
        event = _event(record)
        if event is None or _too_early(event, record, limits):
            continue
        ts, kind = event["ts"], event["type"]
        window = int(record.timestamp // limits.window_s)
        user: str = event.get("user_id", "")
        video: str | None = event.get("video_id")
        version = (ts, event["event_id"])
        queries = set(_queries(event))
        pairs = {(int(ts // BUCKET_S), query) for query in queries}
        if kind in ("video", "removal") and video is not None:
            told[video][version] = event
        elif kind == "rule":
            rules[event["rule_id"]].append(version)
        elif kind == "deletion":
            horizons[user] = max(horizons.get(user, -math.inf), ts + limits.future_s)
        if kind in ("search", "click"):
            for query in queries:
                asked[user][query] = max(asked[user].get(query, -math.inf), ts)
        if kind in ("search", "click", "engagement") and video is not None:
            for pair in pairs:
                tied[video, user, _behaviour(event), pair].add(window)
        if kind in ("exposure", "click", "engagement") and video is not None and pairs:
            which = ("exposure", "click", "engagement").index(kind)
            counted[video, event["event_id"]].add(window)
            counts_what[video, event["event_id"]] = which, pairs

    ties: dict[str, dict[Pair, int]] = defaultdict(lambda: defaultdict(int))
    users: dict[str, dict[Pair, set[str]]] = defaultdict(lambda: defaultdict(set))
    for (video, user, behaviour, pair), windows in tied.items():
        users[video][pair].add(user)
        ties[video][pair] += _times(windows) * THOUSANDTHS[behaviour]
    tallies: dict[str, dict[Pair, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for thing, windows in counted.items():
        which, pairs = counts_what[thing]
        for pair in pairs:
            tallies[thing[0]][pair][which] += _times(windows)

    stands = {video: max(events) for video, events in told.items()}
    return Come(
        texts={
            video: {name: told[video][at][name] for name in TEXTS if told[video][at].get(name)}
            for video, at in stands.items()
            if told[video][at]["type"] == "video"
        },
        sensitive={
            video
            for video, at in stands.items()
            if told[video][at]["type"] == "video" and told[video][at].get("sensitive")
        },
        versions=stands,
        ties={video: _greatest(of, limits.pairs) for video, of in ties.items()},
        users={video: _greatest(of, limits.pairs) for video, of in users.items()},
        counts={
            video: {pair: (e, c, g) for pair, (e, c, g) in _greatest(of, limits.pairs).items()}
            for video, of in tallies.items()
        },
        histories={
            user: kept
            for user, of in asked.items()
            if (kept := _history(of, horizons.get(user, -math.inf), limits.history))
        },
        horizons=horizons,
        rules={rule: max(versions) for rule, versions in rules.items()},
    )


def refused(record: Kept, limits: Limits = PAGE) -> bool:
    """Whether this record is a dead letter."""
    event = _event(record)
    return event is None or _too_early(event, record, limits)


def _too_early(event: dict[str, Any], record: Kept, limits: Limits) -> bool:
    return bool(event["ts"] > record.timestamp + limits.future_s)


def _event(record: Kept) -> dict[str, Any] | None:
    """The event that a record is; None for a dead letter."""
    if not record.value and record.topic in ("onebar.videos", "onebar.rules"):
        name = (record.key or b"").decode()
        what = (
            {"type": "removal", "video_id": name}
            if record.topic == "onebar.videos"
            else {"type": "rule", "rule_id": name, "action": "remove"}
        )
        place = f"tombstone-{record.partition}-{record.offset}"
        return {"event_id": place, "ts": record.timestamp, **what}
    if len(record.value) > LARGEST:
        return None
    try:
        event = json.loads(record.value)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("type") not in NEEDED:
        return None
    needed = ("event_id", "ts", *NEEDED[event["type"]])
    return event if all(event.get(name) is not None for name in needed) else None


def _queries(event: dict[str, Any]) -> Iterator[str]:
    """Those of the event, normalised, without those of which nothing is left."""
    if event["type"] == "rule":
        return
    shown = [item["query"] for item in event.get("queries", ())]
    for query in [*shown, *([event["query"]] if "query" in event else [])]:
        if normal := " ".join(unicodedata.normalize("NFC", query).lower().split()):
            yield normal


def _behaviour(event: dict[str, Any]) -> str:
    if event["type"] == "click":
        return "tap below it" if event.get("position") else "tap on the first"
    return str(event["kind"] if event["type"] == "engagement" else "search")


def _times(windows: set[int]) -> int:
    """How often a thing counts: once for each window it came in and not in the one before."""
    return sum(window - 1 not in windows for window in windows)


def _greatest(of: dict[Pair, T], size: int) -> dict[Pair, T]:
    def order(pair: Pair) -> tuple[int, bytes]:
        return pair[0], pair[1].encode()

    return {pair: of[pair] for pair in sorted(of, key=order, reverse=True)[:size]}


def _history(asked: dict[str, float], horizon: float, size: int) -> dict[str, float]:
    kept = [(ts, query.encode()) for query, ts in asked.items() if ts > horizon]
    return {query.decode(): ts for ts, query in sorted(kept, reverse=True)[:size]}
