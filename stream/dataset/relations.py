"""Relations between queries and videos, mined from an archive: ibis expressions.

The same rule as for triggers keeps the future out: no event from `until` on is read, and a video's
text is that of its newest version before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from onebar.embedding.relations import Relation, RelationSet, write_relations
from onebar.evidence.evidence import trigger_text
from onebar.evidence.text import clean_video
from stream.dataset.asof import VERSION
from stream.dataset.config import DatasetConfig
from stream.dataset.engine import rows_of, workspace
from stream.dataset.outcomes import first_of
from stream.dataset.records import video_text
from stream.dataset.tables import Table, Tables, read_tables


class RelationsConfig(Struct, frozen=True, kw_only=True):
    """What counts as going from one text to the other."""

    until: float | None = None
    """UTC epoch seconds: nothing from then on is read."""
    window_s: float = 1800.0
    """How long after a search a tap on the same query still is what the search led to."""
    reformulation_s: float = 120.0
    """How long after a query another one still replaces it."""
    min_count: int = 1
    """Relations seen less often are left out: on a large log, chance."""


def mine_relations(
    files: Mapping[str, str | None],
    out: Path,
    config: RelationsConfig,
    *,
    source: Mapping[str, Any] | None = None,
    engine: str | None = None,
    told: Callable[[str], None] = lambda phase: None,
) -> RelationSet:
    """Mine the relations in these Parquet files (a glob by event type) into the directory `out`.

    `engine` is the address of an ibis backend; DuckDB where None. Raises `EmptyRelationsError`,
    `RelationsError`, `DatasetEngineError`.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onebar-")))
        work = stack.enter_context(workspace(engine, scratch))
        told("reading the archive")
        tables = read_tables(work, files, DatasetConfig(until=config.until))
        told("pairing")
        pairs = work.keep("pairs", counted(tables, config))
        told("writing")
        return write_relations(
            out,
            _relations(pairs, tables),
            until=config.until,
            source=source,
            settings=to_builtins(config),
        )


def counted(tables: Tables, config: RelationsConfig) -> Table:
    """kind, query, video_id, other, count: `other` is the second query of a q2q, null elsewhere,
    as `video_id` is there."""
    import ibis

    said = _remembered(tables)
    under = said.filter(said.video_id.notnull())
    after_video = under.select("query", "video_id", kind=ibis.literal("v2q"))
    every = ibis.union(
        after_video,
        _led_to_tap(tables, config).mutate(kind=ibis.literal("q2v")).select(*after_video.columns),
    )
    none = ibis.null("string")
    rows = ibis.union(
        every.select("kind", "query", "video_id", other=none),
        _reformulations(said, config).select(
            "query", "other", kind=ibis.literal("q2q"), video_id=none
        ).select("kind", "query", "video_id", "other"),
    )  # fmt: skip
    groups = rows.group_by("kind", "query", "video_id", "other").agg(count=rows.count())
    return groups.filter(groups["count"] >= config.min_count)


def _remembered(tables: Tables) -> Table:
    """user_id, query, video_id, ts, event_id of what users typed and tapped, without what they
    had deleted."""
    import ibis

    columns = ("user_id", "query", "video_id", "ts", "event_id")
    said = ibis.union(tables.searches.select(*columns), tables.clicks.select(*columns))
    return _kept(said, tables)


def _kept(rows: Table, tables: Tables) -> Table:
    last = tables.deletions.group_by("user_id").agg(forgotten=tables.deletions.ts.max())
    joined = rows.left_join(last, "user_id").drop("user_id_right")
    kept = joined.filter(joined.forgotten.isnull() | (joined.ts > joined.forgotten))
    return kept.drop("forgotten")


def _led_to_tap(tables: Tables, config: RelationsConfig) -> Table:
    """query, video_id of each engagement, and of each tap on a query its user had searched before.

    One row a (user, query, video): who orders twice says it once.
    """
    import ibis

    columns = ("user_id", "query", "video_id", "ts")
    engaged = _kept(tables.engagements.select(*columns), tables)
    typed = tables.searches.filter(tables.searches.video_id.isnull())
    typed = typed.select("user_id", "query", typed_at="ts")
    taps = _kept(tables.clicks.select(*columns), tables).join(typed, ["user_id", "query"])
    gap = taps.ts - taps.typed_at
    taps = taps.filter((gap >= 0) & (gap <= config.window_s))
    pair = ("user_id", "query", "video_id")
    return ibis.union(engaged.select(*pair), taps.select(*pair), distinct=True)


def _reformulations(said: Table, config: RelationsConfig) -> Table:
    """query, other: a user's query and the different one that followed it within moments, with no
    other video between them."""
    import ibis

    before = ibis.window(group_by="user_id", order_by=["ts", "event_id"])
    paired = said.mutate(
        first=said["query"].lag().over(before),
        first_at=said.ts.lag().over(before),
        first_video=said.video_id.lag().over(before),
    )
    same = (paired.video_id == paired.first_video).fill_null(False)
    nowhere = paired.video_id.isnull()
    paired = paired.filter(
        paired["first"].notnull()
        & (paired["first"] != paired["query"])
        & (paired.ts - paired.first_at <= config.reformulation_s)
        & (same | nowhere)
    )
    return paired.select("user_id", query="first", other="query").distinct()


def _relations(pairs: Table, tables: Tables) -> Iterator[Relation]:
    """The rows with the texts of their videos; videos that nobody described are left out."""
    texts = dict(_texts(tables))
    for row in rows_of(pairs.order_by("kind", "query", "video_id", "other")):
        query, many = row["query"], row["count"]
        if row["kind"] == "q2q":
            yield Relation("q2q", query, row["other"], many)
            continue
        text = texts.get(row["video_id"])
        if text and row["kind"] == "q2v":
            yield Relation("q2v", query, text, many)
        elif text:
            yield Relation("v2q", text, query, many)


def _texts(tables: Tables) -> Iterator[tuple[str, str]]:
    import ibis

    newest = first_of(tables.videos, "video_id", [ibis.desc("ts"), ibis.desc("event_id")])
    for row in rows_of(newest.select("video_id", "sensitive", *VERSION[:-1])):
        text = trigger_text(clean_video(video_text(row)))
        if text:
            yield row["video_id"], text
