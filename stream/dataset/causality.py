"""No effect before its cause: what belongs to an impression happened after it, whatever its clock
says. ibis expressions."""

from __future__ import annotations

from msgspec import structs

from stream.dataset.config import DatasetConfig
from stream.dataset.engine import Workspace
from stream.dataset.outcomes import REACTIONS, attach
from stream.dataset.tables import Table, Tables


def in_order(work: Workspace, tables: Tables, config: DatasetConfig) -> tuple[Tables, int]:
    """The tables with every reaction at its impression's time or later, and how many events were
    moved.

    An event that carries an impression's request_id and an earlier `ts` was stamped by a clock that
    was behind. Left there, a click would be evidence (an anchor of the video, history of the user)
    of the very trigger whose answer it is.
    """
    moved = 0
    mended: dict[str, Table] = {}
    for name in REACTIONS:
        table = getattr(tables, name)
        events = table.select("event_id", "ts", "video_id", "user_id", "request_id").distinct()
        by = attach(events, tables.impressions, config.window_s).drop("trigger_id")
        late = events.join(by, "event_id").filter(lambda t: t.ts < t.shown_at)
        late = work.keep(f"late_{name}", late.select("event_id", "shown_at"))
        count = int(late.count().execute())
        if not count:
            continue
        moved += count
        joined = table.left_join(late, "event_id").drop("event_id_right")
        joined = joined.mutate(ts=joined.shown_at.coalesce(joined.ts)).drop("shown_at")
        mended[name] = work.keep(f"in_order_{name}", joined)
    return structs.replace(tables, **mended), moved
