"""Paths into an object of somebody else's: `user.id`, `items[0].sku`, `params[key=term].value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from onebar.errors import OneBarError

MISSING: Any = object()
"""What a path finds where there is nothing; null counts as nothing."""
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]|\[([^\]=]+)=([^\]]*)\]")
Step = str | int | tuple[str, str]


class PathError(OneBarError, ValueError):
    """A path that is none."""


def steps_of(path: str) -> tuple[Step, ...]:
    """A path taken apart: names, places in a list, and `(name, value)` for the first object of a
    list in which the name has that value. Raises `PathError`."""
    steps: list[Step] = []
    at = 0
    while at < len(path):
        if steps and path[at] == ".":
            at += 1
        match = _STEP.match(path, at)
        if match is None:
            raise PathError(f"{path!r} is no path: expected names with dots, [0] or [name=value]")
        name, place, key, value = match.groups()
        steps.append(name if name is not None else int(place) if place else (key, value))
        at = match.end()
    if not steps:
        raise PathError("an empty path")
    return tuple(steps)


def find(row: Any, path: str, steps: Sequence[Step]) -> Any:
    """What stands there, or `MISSING`. A name that holds the whole path, dots and all (the column
    of a table), is looked for first."""
    if isinstance(row, Mapping) and path in row:
        value = row[path]
        return MISSING if value is None else value
    value = row
    for step in steps:
        match step:
            case str() if isinstance(value, Mapping):
                value = value.get(step)
            case int() if isinstance(value, list) and step < len(value):
                value = value[step]
            case (key, wanted) if isinstance(value, list):
                named = (one for one in value if isinstance(one, Mapping))
                value = next((one for one in named if str(one.get(key)) == wanted), None)
            case _:
                return MISSING
        if value is None:
            return MISSING
    return value
