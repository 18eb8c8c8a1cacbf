"""Which impressions become triggers, and what came of each: ibis expressions."""

from __future__ import annotations

from msgspec import structs

from stream.dataset.config import DatasetConfig
from stream.dataset.engine import Workspace
from stream.dataset.tables import Table, Tables


def first_of(table: Table, group: str, order: list[str]) -> Table:
    """The first row of each group in this order."""
    import ibis

    number = ibis.row_number().over(group_by=group, order_by=order)
    return table.mutate(place=number).filter(lambda t: t.place == 0).drop("place")


def attach(events: Table, impressions: Table, window_s: float) -> Table:
    """`trigger_id` and `shown_at` of the impression each event belongs to; events of none are left
    out.

    By request_id where both have one (of several, the nearest in time: a client may repeat one),
    else the user's newest impression of the video before the event; in either case no more than
    `window_s` apart. A request_id holds backwards as well: the event's clock may be behind.
    `events` has event_id, ts, video_id, user_id and perhaps request_id.
    """
    import ibis

    seen = impressions.select(
        "video_id", "user_id", trigger_id="event_id", shown_at="ts", shown_by="request_id"
    )
    found = events.join(seen, ["video_id", "user_id"])
    gap = found.ts - found.shown_at
    apart = gap.abs()
    if "request_id" in events.columns:
        named = found.request_id.notnull() & found.shown_by.notnull()
        same = (named & (found.request_id == found.shown_by)).fill_null(False)
        near = ~named & (gap >= 0)
    else:
        same = ibis.literal(False)
        near = gap >= 0
    found = found.mutate(same=same, apart=apart)
    found = found.filter((same | near) & (apart <= window_s))
    number = ibis.row_number().over(
        group_by="event_id", order_by=[ibis.desc("same"), "apart", "trigger_id"]
    )
    best = found.mutate(place=number).filter(lambda t: t.place == 0)
    return best.select("event_id", "trigger_id", "shown_at")


REACTIONS = ("clicks", "engagements", "shown")
"""The tables of `Tables` whose events name the request that they answer."""


def commonly_named(tables: Tables) -> tuple[Tables, bool]:
    """The tables with impressions that belong to their reactions by user, video and time alone,
    where not one of all request_ids of impressions is a reaction's; and whether that is so.

    An impression is told before the lookup, whose answer has the name that reactions carry, so a
    feed may have named it itself. By such names nothing would belong to anything.
    """
    import ibis

    impressions = tables.impressions
    reactions = [getattr(tables, name).select("request_id") for name in REACTIONS]
    named = ibis.union(*reactions, distinct=True).filter(lambda t: t.request_id.notnull())
    own = impressions.filter(impressions.request_id.notnull())
    if not _any(own) or _any(own.semi_join(named, "request_id")) or not _any(named):
        return tables, False
    unnamed = impressions.mutate(request_id=ibis.null("string"))
    return structs.replace(tables, impressions=unnamed), True


def _any(table: Table) -> bool:
    """Whether it has a row: an engine may stop at the first."""
    return bool(table.limit(1).count().execute())


def outcomes(work: Workspace, tables: Tables, config: DatasetConfig) -> Table:
    """One row an impression that can be a trigger, materialised.

    trigger_id, ts, video_id, user_id; `clicked` (the first query that was tapped), `engaged`,
    `searched` (the first query typed after it), `flagged` (whether the video was ever marked
    sensitive: a label may come from the future, evidence may not), `exposed`.

    A click that has no impression in the log is a trigger of its own moment.
    """
    import ibis

    impressions = tables.impressions
    clicks = tables.clicks
    by = attach(clicks, impressions, config.window_s).drop("shown_at")
    clicked = clicks.left_join(by, "event_id").drop("event_id_right")
    alone = clicked.filter(clicked.trigger_id.isnull())
    clicked = clicked.mutate(trigger_id=ibis.coalesce(clicked.trigger_id, clicked.event_id))
    first = first_of(clicked, "trigger_id", ["ts", "event_id"]).select(
        "trigger_id", clicked="query", clicked_event="event_id"
    )

    engaged = tables.engagements
    by = attach(engaged, impressions, config.window_s)
    engaged = engaged.join(by, "event_id").select("trigger_id", clicked="query").distinct()
    engaged = engaged.mutate(engaged=ibis.literal(True))

    searches = tables.searches.filter(tables.searches.video_id.notnull())
    typed = searches.join(attach(searches, impressions, config.window_s), "event_id")
    typed = first_of(typed, "trigger_id", ["ts", "event_id"]).select("trigger_id", searched="query")

    shown = tables.shown.select("event_id", "ts", "video_id", "user_id", "request_id").distinct()
    exposed = shown.join(attach(shown, impressions, config.window_s), "event_id")
    exposed = first_of(exposed, "trigger_id", ["ts", "event_id"]).select(
        "trigger_id", exposure="event_id"
    )

    flagged = tables.videos.filter(tables.videos.sensitive).select("video_id").distinct()
    flagged = flagged.mutate(flagged=ibis.literal(True))

    base = ibis.union(
        impressions.select("video_id", "user_id", "ts", trigger_id="event_id"),
        alone.select("video_id", "user_id", "ts", trigger_id="event_id"),
    )
    if config.since is not None:
        base = base.filter(base.ts >= config.since)
    every = (
        base.left_join(first, "trigger_id").drop("trigger_id_right", "clicked_event")
        .left_join(typed, "trigger_id").drop("trigger_id_right")
        .left_join(exposed, "trigger_id").drop("trigger_id_right")
    )  # fmt: skip
    every = every.left_join(engaged, ["trigger_id", "clicked"]).drop(
        "trigger_id_right", "clicked_right"
    )
    every = every.left_join(flagged, "video_id").drop("video_id_right")
    every = every.mutate(
        engaged=every.engaged.fill_null(False), flagged=every.flagged.fill_null(False)
    )
    wanted = (
        every.flagged
        | every.clicked.notnull()
        | every.exposure.notnull()
        | (every.searched.notnull() if config.searches else ibis.literal(False))
    )
    return work.keep("outcomes", every.filter(wanted))
