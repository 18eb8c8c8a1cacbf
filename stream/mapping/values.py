"""Values as our events have them: times in seconds, ids and queries as text."""

from __future__ import annotations

import math
import reprlib
from datetime import UTC, datetime
from typing import Any, Literal

from onebar.errors import OneBarError

TimeUnit = Literal["auto", "iso", "s", "ms", "us", "ns"]
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_AUTO: tuple[tuple[float, TimeUnit], ...] = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"))
"""From these values on a number of our decades can't be of a coarser unit."""


class InvalidValueError(OneBarError, ValueError):
    """A value that can't be made what it has to be; the text says why."""


def shown(value: Any) -> str:
    """The beginning of a value, for an error, however deep it is nested."""
    return f"{value!r:.60}" if isinstance(value, str) else f"{reprlib.repr(value):.60}"


def seconds(value: Any, unit: TimeUnit = "auto") -> float:
    """UTC epoch seconds of a time: a number of the unit, or a date of ISO 8601 (a space for its T
    will do, and without a zone it is UTC). `auto` tells the unit by the size of the number. Raises
    `InvalidValueError`."""
    number = _number(value) if unit != "iso" else None
    if number is None:
        if not isinstance(value, str) or unit not in ("auto", "iso"):
            of = "" if unit == "auto" else f" in {unit}"
            raise InvalidValueError(f"expected a time{of}, got {shown(value)}")
        return _date(value)
    if unit == "auto":
        unit = next((name for least, name in _AUTO if abs(number) >= least), "s")
    return number / _PER_SECOND[unit]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> float:
    bare = text.strip().removesuffix("UTC").strip()
    try:
        moment = datetime.fromisoformat(bare)
    except ValueError:
        raise InvalidValueError(f"expected a time, got {text!r:.60}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def text(value: Any) -> str:
    """An id or a text: a number is written out. Raises `InvalidValueError`."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValueError(f"expected a text or a number, got {shown(value)}")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
