"""Days that an archive lacks: a hole in the log is a hole in the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from onebar.triggers import DatasetError
from stream.dataset.config import DatasetConfig


class MissingDaysError(DatasetError):
    """The archive has no events of some days between its first and its last."""


def missing_days(days: Iterable[date]) -> list[date]:
    """The days between the first and the last that are not there."""
    known = set(days)
    if not known:
        return []
    first, last = min(known), max(known)
    every = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in every if day not in known]


def check_days(days: Iterable[date], config: DatasetConfig, *, strict: bool) -> list[str]:
    """What is to be said of missing days; with `strict`, `MissingDaysError` instead.

    Days outside `since` and `until` count as asked for.
    """
    known = set(days)
    for bound, step in ((config.since, 0.0), (config.until, -1e-6)):
        if bound is not None and known:
            asked = datetime.fromtimestamp(bound + step, UTC).date()
            if not min(known) <= asked <= max(known):
                known_days = f"{min(known)} to {max(known)}"
                if strict:
                    raise MissingDaysError(f"{asked} was asked for, the archive has {known_days}")
                return [f"{asked} was asked for, the archive has {known_days}"]
    gaps = missing_days(known)
    if not gaps:
        return []
    named = ", ".join(map(str, gaps[:5])) + (f" and {len(gaps) - 5} more" if gaps[5:] else "")
    told = f"the archive has no events of {named}: anchors and histories lack what happened then"
    if strict:
        raise MissingDaysError(told)
    return [told]
