"""The archive's tables as ibis expressions, on whatever engine: events once, queries normalised.

Nothing here or in `stream.dataset.asof` is of one engine: no SQL text, no function in Python that
an engine would have to call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.policy import StatePolicy
from onebar.records import TEXT_FIELDS
from stream.dataset.config import DatasetConfig
from stream.dataset.engine import Workspace
from stream.events.fold import LOWER, FoldWeights

if TYPE_CHECKING:
    pass

Table = Any
"""An ibis table expression."""

_STRING = "string"
COLUMNS: dict[str, dict[str, str]] = {
    "video": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        **dict.fromkeys(TEXT_FIELDS, _STRING),
        "sensitive": "boolean",
    },
    "impression": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        "user_id": _STRING,
        "request_id": _STRING,
    },
    "search": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        "user_id": _STRING,
        "query": _STRING,
    },
    "exposure": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        "user_id": _STRING,
        "request_id": _STRING,
        "queries": "array<struct<query: string, position: int32, propensity: float64>>",
    },
    "click": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        "user_id": _STRING,
        "request_id": _STRING,
        "query": _STRING,
        "position": "int32",
    },
    "engagement": {
        "event_id": _STRING,
        "ts": "float64",
        "video_id": _STRING,
        "user_id": _STRING,
        "request_id": _STRING,
        "query": _STRING,
        "kind": _STRING,
    },
    "deletion": {"event_id": _STRING, "ts": "float64", "user_id": _STRING},
    "removal": {"event_id": _STRING, "ts": "float64", "video_id": _STRING},
}
"""What is read of each event type."""


class Tables(Struct, frozen=True):
    """Every event once. `shown` has one row for each query of an exposure; `query` is normalised
    everywhere, and rows with nothing left of it are gone.

    So is what users did who were forgotten since, and what was done under videos that were removed
    since, whenever that was: also after what a dataset is made until.
    """

    videos: Table
    impressions: Table
    searches: Table
    shown: Table
    clicks: Table
    engagements: Table
    deletions: Table


def read_tables(work: Workspace, files: Mapping[str, str | None], config: DatasetConfig) -> Tables:
    """The tables in these Parquet files (a glob by event type, None where there are none),
    materialised on the engine."""
    gone = {
        type: work.keep(f"gone_{type}", table) for type, table in _gone(work, files, config).items()
    }
    events = {
        type: _once(work, type, _left(_read(work, files.get(type), columns), gone, config), config)
        for type, columns in COLUMNS.items()
    }
    exposed = events["exposure"]
    shown = exposed.select(
        "event_id", "ts", "video_id", "user_id", "request_id", item=exposed.queries.unnest()
    )
    shown = shown.mutate(
        query=shown.item["query"],
        position=shown.item.position,
        propensity=shown.item.propensity.fill_null(1.0),
    ).drop("item")
    spelling = _spelling(work, [events["search"], events["click"], events["engagement"], shown])

    def spelled(table: Table) -> Table:
        joined = table.rename(raw="query").join(spelling, "raw")
        return joined.drop("raw")

    # A query named twice in one exposure was shown once, at its first place.
    shown = spelled(shown)
    first = shown.group_by("event_id", "query").agg(
        position=shown.position.min(), propensity=shown.propensity.argmin(shown.position)
    )
    shown = shown.drop("position", "propensity").distinct().join(first, ["event_id", "query"])
    return Tables(
        events["video"],
        events["impression"],
        work.keep("searches", spelled(events["search"])),
        work.keep("shown", shown),
        work.keep("clicks", spelled(events["click"])),
        work.keep("engagements", spelled(events["engagement"])),
        events["deletion"],
    )


def _gone(
    work: Workspace, files: Mapping[str, str | None], config: DatasetConfig
) -> dict[str, Table]:
    """`users` with when they were last forgotten; `videos` whose newest event removes them."""
    import ibis

    deletions, removals, videos = (
        _read(work, files.get(type), COLUMNS[type]) for type in ("deletion", "removal", "video")
    )
    users = deletions.group_by("user_id").agg(forgotten=deletions.ts.max())
    last = removals.group_by("video_id").agg(removed=removals.ts.max())
    newest = videos.group_by("video_id").agg(put=videos.ts.max())
    both = last.left_join(newest, "video_id")
    removed = both.filter(both.put.isnull() | (both.put <= both.removed))
    return {
        "users": users.mutate(forgotten=users.forgotten + config.policy.deletion_reach_s),
        "videos": removed.select("video_id", there=ibis.literal(True)),
    }


def _left(table: Table, gone: Mapping[str, Table], config: DatasetConfig) -> Table:
    """Without what is forgotten and removed."""
    names = table.columns
    if "user_id" in names and "video_id" in names:
        joined = table.left_join(gone["users"], "user_id")
        kept = joined.filter(joined.forgotten.isnull() | (joined.ts > joined.forgotten))
        table = kept.select(*names)
    if "video_id" in names and len(names) > 3:
        joined = table.left_join(gone["videos"], "video_id")
        table = joined.filter(joined.there.isnull()).select(*names)
    return table


def _read(work: Workspace, files: str | None, columns: dict[str, str]) -> Table:
    import ibis

    if files is None:
        return ibis.memtable([], schema=columns)
    table = work.read_parquet(files).select(*columns)
    if "queries" in columns and "propensity" not in table.queries.type().value_type.names:
        # Written before there were any.
        table = table.mutate(
            queries=table.queries.map(
                lambda item: ibis.struct(
                    {
                        "query": item["query"],
                        "position": item.position,
                        "propensity": ibis.null("float64"),
                    }
                )
            )
        )
    return table.cast(columns)


def _once(work: Workspace, name: str, table: Table, config: DatasetConfig) -> Table:
    """Redelivered events are dropped: of equal event_ids the earliest `ts` stays."""
    import ibis

    if config.until is not None:
        table = table.filter(table.ts < config.until)
    number = ibis.row_number().over(group_by="event_id", order_by="ts")
    once = table.mutate(copy=number).filter(lambda t: t.copy == 0).drop("copy")
    return work.keep(name, once)


def _spelling(work: Workspace, tables: list[Table]) -> Table:
    """raw → query, for every distinct query of these: the one thing done in Python, and once."""
    import ibis
    import pyarrow as pa

    raw = ibis.union(*(table.select(raw="query") for table in tables), distinct=True)
    pairs = [
        (text, query)
        for batch in raw.to_pyarrow_batches()
        for text in batch.column(0).to_pylist()
        if text is not None and (query := normalize_query(text))
    ]
    found = pa.table(
        {
            "raw": pa.array([text for text, _ in pairs], pa.string()),
            "query": pa.array([query for _, query in pairs], pa.string()),
        }
    )
    return work.keep("spelling", found)


def behaviors(tables: Tables, weights: FoldWeights, policy: StatePolicy) -> Table:
    """What `stream.events.fold` adds to a video's state: one row for each (event, query).

    `milli` ties the query to the video (thousandths of a search), `exposures`, `clicks` and
    `engagements` are counted, `bucket` is the time bucket, `tie` says whether it was asked or
    tapped at all. Of what a user did in the same way in one bucket only the first has a `milli`.
    """
    import ibis

    def row(table: Table, way: Any, milli: Any, **counted: int) -> Table:
        counts = {name: counted.get(name, 0) for name in ("exposures", "clicks", "engagements")}
        chosen = table.filter(table.video_id.notnull())
        return chosen.select(
            "video_id",
            "query",
            "ts",
            "event_id",
            asker="user_id",
            way=ibis.literal(way, _STRING) if isinstance(way, str) else way,
            milli=ibis.literal(milli, "int64") if isinstance(milli, int) else milli,
            **{name: ibis.literal(value, "int64") for name, value in counts.items()},
        )

    engaged = tables.engagements
    kinds = engaged.kind.cases(
        *(
            (kind, ibis.literal(round(weights.engagement(kind) * 1000), "int64"))
            for kind in ("item_click", "cart", "order", "dwell")
        ),
        else_=ibis.literal(0, "int64"),
    )
    lower = (tables.clicks.position > 0).fill_null(False)
    way = ibis.ifelse(lower, ibis.literal(LOWER, _STRING), ibis.literal("click", _STRING))
    tapped = ibis.ifelse(
        lower,
        ibis.literal(round(weights.tap(True) * 1000), "int64"),
        ibis.literal(round(weights.tap(False) * 1000), "int64"),
    )
    every = ibis.union(
        row(tables.searches, "search", round(weights.search * 1000)),
        row(tables.clicks, way, tapped, clicks=1),
        row(engaged, engaged.kind, kinds, engagements=1),
        row(tables.shown, "exposure", 0, exposures=1),
    )
    every = every.mutate(
        bucket=(every.ts / policy.bucket_s).floor().cast("int64"),
        window=(every.ts / policy.dedupe_window_s).floor().cast("int64"),
        tie=every.milli > 0,
    )
    same = ["video_id", "asker", "query", "way", "bucket"]
    before = every.window.lag().over(group_by=same, order_by=["ts", "event_id"])
    every = every.mutate(since=every.window - before)
    again = every.since.notnull() & (every.since <= 1)
    return every.mutate(milli=ibis.ifelse(again, 0, every.milli)).drop(
        "event_id", "way", "window", "since"
    )
