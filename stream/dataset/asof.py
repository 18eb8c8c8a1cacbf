"""The evidence of each trigger as it was then: ibis expressions.

Everything that is joined to a trigger is earlier than its `cutoff`, which is its time less the
visibility lag; nothing else of the log is looked at here.
"""

from __future__ import annotations

from typing import Any

from onebar.policy import MAX_SHOWABLE_USERS
from onebar.records import TEXT_FIELDS
from stream.dataset.config import DatasetConfig
from stream.dataset.engine import Workspace
from stream.dataset.outcomes import first_of
from stream.dataset.tables import Table, Tables, behaviors

SUMS = ("milli", "exposures", "clicks", "engagements")
SHOWN = ("query", "position", "propensity")
VERSION = (*TEXT_FIELDS, "sensitive")


def evidence(work: Workspace, triggers: Table, tables: Tables, config: DatasetConfig) -> Table:
    """One row a trigger, by time, with lists that `stream.dataset.records` makes a `Trigger` of.

    `triggers` has trigger_id, ts, video_id, user_id and what `outcomes` found. Added: the video's
    text (`VERSION`) and `born`, its first event; `entries` (what is known of queries under it, by
    time bucket), `behaviors` (how many there were), `history`, `forgotten` (the user's newest
    deletion), `own` (queries this user clicked here before), `shown`, `pool`.
    """
    bucket_s = config.policy.bucket_s
    cutoff = triggers.ts - config.visibility_lag_s
    moments = triggers.select(
        "trigger_id",
        "video_id",
        "user_id",
        cutoff=cutoff,
        bucket=(cutoff / bucket_s).floor().cast("int64"),
    )
    moments = work.keep("moments", moments)
    known = work.keep("behaviors", behaviors(tables, config.weights, config.policy))
    parts = (
        text_of(moments, tables),
        entries_of(moments, known, config),
        history_of(moments, tables, config),
        forgotten_of(moments, tables),
        own_of(moments, tables),
        shown_of(triggers, tables),
        pool_of(moments, known, tables, config),
    )
    table = triggers
    for number, part in enumerate(parts):
        # One at a time: an engine then never holds the lists of all of them at once.
        part = work.keep(f"part_{number}", part)
        table = table.left_join(part, "trigger_id").drop("trigger_id_right")
    return table.order_by("ts", "trigger_id")


def text_of(moments: Table, tables: Tables) -> Table:
    """The newest version of the video's text, and when the video was first heard of."""
    import ibis

    videos = tables.videos.rename(version_ts="ts")
    found = moments.join(videos, "video_id").filter(lambda t: t.version_ts < t.cutoff)
    born = found.group_by("trigger_id").agg(born=found.version_ts.min())
    newest = first_of(found, "trigger_id", [ibis.desc("version_ts"), ibis.desc("event_id")])
    return newest.select("trigger_id", *VERSION).join(born, "trigger_id")


def entries_of(moments: Table, known: Table, config: DatasetConfig) -> Table:
    """`entries`: (bucket, query) with their sums; `behaviors`: how many there were.

    Whole buckets before the moment's own are summed once for all triggers; of its own bucket the
    events before the moment are. Of the entries the newest `max_entries` are kept, for anchors and
    for counters apart, as the store keeps them. Of the users who tied a query to the video an entry
    names as many as any threshold asks for.
    """
    import ibis

    def summed(table: Table) -> dict[str, Any]:
        users = table.asker.collect(where=table.tie, distinct=True)[:MAX_SHOWABLE_USERS]
        many = table.tie.cast("int64").sum()
        return {**{name: table[name].sum() for name in SUMS}, "users": users, "many": many}

    whole = known.group_by("video_id", "bucket", "query").agg(**summed(known))
    past = whole.rename(at="bucket")
    before = moments.join(past, "video_id").filter(lambda t: t.at < t.bucket)
    columns = ("trigger_id", "at", "query", *SUMS, "users", "many")
    same = known.rename(at="bucket")
    within = moments.join(same, "video_id").filter(lambda t: (t.at == t.bucket) & (t.ts < t.cutoff))
    partly = within.group_by("trigger_id", "at", "query").agg(**summed(within))
    every = ibis.union(before.select(*columns), partly.select(*columns))

    counted = every.exposures + every.clicks + every.engagements > 0
    order = [ibis.desc("at"), ibis.desc("query")]
    every = every.mutate(tied=every.milli > 0, counted=counted)
    every = every.mutate(
        tied_place=ibis.row_number().over(group_by=["trigger_id", "tied"], order_by=order),
        counted_place=ibis.row_number().over(group_by=["trigger_id", "counted"], order_by=order),
    )
    most = config.policy.max_entries
    kept = every.mutate(
        tied=every.tied & (every.tied_place < most),
        counted=every.counted & (every.counted_place < most),
    )
    total = every.group_by("trigger_id").agg(behaviors=every.many.sum())
    kept = kept.filter(kept.tied | kept.counted)
    entry = ibis.struct(
        {
            "bucket": kept.at,
            "query": kept.query,
            "milli": ibis.ifelse(kept.tied, kept.milli, 0),
            "users": kept.users,
            **{
                name: ibis.ifelse(kept.counted, kept[name], 0)
                for name in ("exposures", "clicks", "engagements")
            },
        }
    )
    lists = kept.group_by("trigger_id").agg(entries=entry.collect())
    return lists.join(total, "trigger_id")


def history_of(moments: Table, tables: Tables, config: DatasetConfig) -> Table:
    """`history`: the user's newest distinct queries with their newest time."""
    import ibis

    said = ibis.union(
        *(table.select("user_id", "query", "ts") for table in (tables.searches, tables.clicks))
    )
    found = moments.join(said, "user_id").filter(lambda t: t.ts < t.cutoff)
    newest = found.group_by("trigger_id", "query").agg(at=found.ts.max())
    place = ibis.row_number().over(
        group_by="trigger_id", order_by=[ibis.desc("at"), ibis.desc("query")]
    )
    newest = newest.mutate(place=place).filter(lambda t: t.place < config.policy.history_size)
    entry = ibis.struct({"query": newest.query, "ts": newest.at})
    return newest.group_by("trigger_id").agg(history=entry.collect())


def forgotten_of(moments: Table, tables: Tables) -> Table:
    """`forgotten`: when the user last had themselves deleted."""
    deletions = tables.deletions.select("user_id", "ts")
    found = moments.join(deletions, "user_id").filter(lambda t: t.ts < t.cutoff)
    return found.group_by("trigger_id").agg(forgotten=found.ts.max())


def own_of(moments: Table, tables: Tables) -> Table:
    """`own`: the queries this user clicked under this video before."""
    clicks = tables.clicks.select("user_id", "video_id", "query", "ts")
    found = moments.join(clicks, ["user_id", "video_id"]).filter(lambda t: t.ts < t.cutoff)
    once = found.select("trigger_id", "query").distinct()
    return once.group_by("trigger_id").agg(own=once["query"].collect())


def shown_of(triggers: Table, tables: Tables) -> Table:
    """`shown`: what stood in the bar at the impression, which is part of its outcome."""
    import ibis

    exposures = triggers.filter(triggers.exposure.notnull()).select(
        "trigger_id", event_id="exposure"
    )
    found = exposures.join(tables.shown.select("event_id", *SHOWN), "event_id")
    item = ibis.struct({name: found[name] for name in SHOWN})
    return found.group_by("trigger_id").agg(shown=item.collect())


def pool_of(moments: Table, known: Table, tables: Tables, config: DatasetConfig) -> Table:
    """`pool`: what was searched and clicked most under videos of the same category in the last
    whole time bucket before the moment: what a retrieval by category would have offered.

    A video's category is that of its newest version: it only decides where level 6 is drawn from.
    """
    import ibis

    newest = first_of(tables.videos, "video_id", [ibis.desc("ts"), ibis.desc("event_id")])
    category = newest.select("video_id", "category")
    wanted = known.filter(known.milli > 0).join(category, "video_id")
    popular = wanted.group_by("category", "bucket", "query").agg(weight=wanted.milli.sum())
    place = ibis.row_number().over(
        group_by=["category", "bucket"], order_by=[ibis.desc("weight"), "query"]
    )
    popular = popular.mutate(place=place).filter(lambda t: t.place < config.pool_size)
    pools = popular.group_by("category", "bucket").agg(pool=popular["query"].collect())
    pools = pools.mutate(bucket=pools.bucket + 1)
    placed = moments.join(category, "video_id").select("trigger_id", "category", "bucket")
    return placed.join(pools, ["category", "bucket"]).select("trigger_id", "pool")
