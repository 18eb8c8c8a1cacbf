"""One row of `stream.dataset.asof.evidence` into a `Trigger`: what only Python can do. Pure.

Cleaning, ranking and assembling are the very functions that serving uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from feature_store.buckets import (
    MAX_ANCHORS,
    most_exposed,
    newest,
    rank_anchors,
    showable,
    shown_anchors,
    total_counts,
)
from onebar.evidence.evidence import Evidence, assemble, terms
from onebar.evidence.text import REJECT, clean_video
from onebar.gating.gate import never_shown
from onebar.records import TEXT_FIELDS, Features, HistoryEntry, QueryCounts, VideoText
from onebar.triggers import Counted, Kind, Preference, Shown, Trigger
from stream.dataset.config import DatasetConfig
from stream.dataset.preferences import candidates, preference_list

Row = Mapping[str, Any]

_clean = lru_cache(maxsize=8192)(clean_video)


@lru_cache(maxsize=65536)
def may_be_learnt(query: str) -> bool:
    """Whether a query may be learnt from: not where it could never be shown."""
    return never_shown(query) is None


def video_text(row: Row) -> VideoText:
    """The text of a video as it came, in the columns of a row."""
    fields = {name: row[name] or "" for name in TEXT_FIELDS}
    return msgspec.convert(fields | {"sensitive": bool(row["sensitive"])}, VideoText)


def features_of(row: Row, config: DatasetConfig) -> tuple[Features, dict[str, QueryCounts]]:
    """What the store would have known of the pair, and the counters of the video's queries."""
    entries = row["entries"] or ()
    tied = {(e["bucket"], e["query"]): e["milli"] for e in entries if e["milli"]}
    counted = {
        (e["bucket"], e["query"]): QueryCounts(e["exposures"], e["clicks"], e["engagements"])
        for e in entries
        if e["exposures"] or e["clicks"] or e["engagements"]
    }
    most = config.policy.max_entries
    askers = {
        key: tuple(e["users"] or ()) for e in entries if (key := (e["bucket"], e["query"])) in tied
    }
    may_be_shown = showable(newest(askers, most), config.policy, row["ts"])
    ranked = rank_anchors(newest(tied, most), config.policy, row["ts"], may_be_shown)
    anchors = shown_anchors(ranked)[:MAX_ANCHORS]
    forgotten = row["forgotten"]
    reach = config.policy.deletion_reach_s
    history = [
        HistoryEntry(entry["query"], entry["ts"])
        for entry in row["history"] or ()
        if forgotten is None or entry["ts"] > forgotten + reach
    ]
    history.sort(key=lambda entry: (entry.ts, entry.query), reverse=True)
    text = None
    if row["born"] is not None:
        text = _clean(video_text(row))
    return Features(text, anchors, tuple(history)), total_counts(newest(counted, most))


def trigger_of(row: Row, config: DatasetConfig) -> Trigger:
    """The trigger of a row; its kind may be `shown` although nothing was exposed: then it is of
    no use to anybody."""
    features, counts = features_of(row, config)
    evidence = assemble(features, max_anchors=config.max_anchors, max_history=config.max_history)
    weights = {anchor.query: anchor.weight for anchor in features.anchors}
    kind, target = _outcome(row, evidence, config)
    shown = tuple(
        sorted(
            (
                Shown(
                    item["query"],
                    item["position"],
                    item["query"] == row["clicked"],
                    item["propensity"],
                )
                for item in row["shown"] or ()
            ),
            key=lambda item: (item.position, item.query),
        )
    )
    preferences: tuple[Preference, ...] = ()
    if kind == "click":
        levels = candidates(
            target=target,
            engaged=row["engaged"],
            shown=shown,
            counts=counts,
            own=row["own"] or (),
            anchors={anchor.query for anchor in features.anchors},
            pool=sorted(row["pool"] or ()),
        )
        levels = {level: list(filter(may_be_learnt, found)) for level, found in levels.items()}
        words = " ".join((evidence.text, evidence.summary, *evidence.anchors))
        preferences = preference_list(levels, counts, words, config, row["trigger_id"])
    return Trigger(
        trigger_id=row["trigger_id"],
        kind=kind,
        ts=row["ts"],
        video_id=row["video_id"],
        user_id=row["user_id"] or "",
        category="" if features.text is None else features.text.category,
        text=evidence.text,
        summary=evidence.summary,
        anchors=evidence.anchors,
        anchor_weights=tuple(round(weights.get(query, 0.0), 4) for query in evidence.anchors),
        history=evidence.history,
        recent=tuple(entry.query for entry in features.history),
        target=target,
        preferences=preferences,
        shown=shown,
        counts=tuple(Counted(*one) for one in most_exposed(counts)),
        video_behaviors=row["behaviors"] or 0,
        video_age_s=row["ts"] - row["born"] if row["born"] is not None else 0.0,
    )


def _outcome(row: Row, evidence: Evidence, config: DatasetConfig) -> tuple[Kind, str]:
    if row["flagged"]:
        return "reject", REJECT
    clicked, searched = (
        None if query is None or not may_be_learnt(query) else query
        for query in (row["clicked"], row["searched"])
    )
    if clicked is not None and len(clicked) <= config.max_target_chars:
        return "click", clicked
    if config.searches and searched is not None and len(searched) <= config.max_target_chars:
        words = (evidence.text, evidence.summary, *evidence.anchors, *evidence.history)
        # A search that shares no term with what is known has nothing to do with the video.
        if not terms(searched).isdisjoint(terms(" ".join(words))):
            return "search", searched
    return "shown", ""
