"""Where a mapping makes no event of any row: what in it does not fit them, and what may be meant.
Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stream.mapping.mapping import PLACE, EventMapping, Place
from stream.mapping.paths import MISSING, find
from stream.mapping.values import shown

DELIMITERS = ",;\t|"
NAMED = 6
"""Names and values that are told of each kind."""


def slips(mapping: EventMapping, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What may be wrong with a mapping by which none of these rows becomes an event; the likeliest
    first, nothing where nothing strikes."""
    if not rows:
        return ()
    names = list(dict.fromkeys(name for row in rows for name in row if name != PLACE))
    if mapping.is_table and (other := other_delimiter(mapping.table.delimiter, names)):
        return (
            f"the first line is one column, {names[0]!r:.80}: is `delimiter` of [table] {other!r}?",
        )
    wanted = [places for places in mapping.reads() if places[0][1][0] != PLACE]
    lacking = [places for places in wanted if not any(_somewhere(rows, one) for one in places)]
    absent = list(dict.fromkeys(places[0][0] for places in lacking))
    told = _some(names)
    if mapping.is_table and not mapping.table.columns and len(lacking) == len(wanted):
        return (
            f"the first line names the columns, {told}, and the mapping reads none of them, but "
            f"{_some(absent)}: if that line is a row already, list `columns` under [table]",
        )
    found = [f"no row has {_some(absent)}{_near(absent, names)}; the first names are {told}"]
    found = found if absent else []
    return (*found, *_conditions(mapping, rows))


def other_delimiter(delimiter: str, cells: Sequence[str]) -> str:
    """What parts the cells where there is but one; empty where nothing does."""
    if len(cells) != 1:
        return ""
    marks = (mark for mark in DELIMITERS if mark != delimiter)
    return max(marks, key=cells[0].count) if any(m in cells[0] for m in DELIMITERS) else ""


def _somewhere(rows: Iterable[Mapping[str, Any]], place: Place) -> bool:
    return any(find(row, *place) not in (MISSING, "") for row in rows)


def _conditions(mapping: EventMapping, rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Conditions whose path is there, with other values alone."""
    for number, (kind, when) in enumerate(mapping.conditions(), 1):
        for path, steps, wanted in when:
            if isinstance(wanted, bool) or steps[0] == PLACE:
                continue
            values = (find(row, path, steps) for row in rows)
            there = list(dict.fromkeys(shown(value) for value in values if value is not MISSING))
            any_of = {shown(one) for one in (wanted if isinstance(wanted, list) else [wanted])}
            if there and any_of.isdisjoint(there):
                yield (
                    f"event {number} ({kind}) is for rows with {path} = {shown(wanted)}, and they "
                    f"have {', '.join(there[:NAMED])}"
                )


def _near(absent: Iterable[str], names: Sequence[str]) -> str:
    meant = [
        f"{near[0]!r} for {path!r}"
        for path in absent
        if (near := difflib.get_close_matches(path, names, 1, 0.75))
    ]
    return f" (is {', '.join(meant[:NAMED])} meant?)" if meant else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"{name!r:.60}" for name in names[:NAMED]) + more
