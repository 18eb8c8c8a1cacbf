"""Log lines for people: the time here, the level, who says it, what, and the facts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog

from onebar.process.console import printable

OURS = ("onebar", "stream", "api", "feature_store")
"""Whose loggers are ours."""
_COLORS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_BOLD, _DIM = "1", "2"
_WHO = 9
"""Columns for who says it: the longest of the workers' names."""
_ASIDE = ("event", "level", "logger", "timestamp", "worker", "exception", "stack")


def is_ours(logger: str) -> bool:
    """Whether it is a logger of ours, not of a library."""
    return logger.partition(".")[0] in OURS


class Lines:
    """Renders an event as one line; a traceback follows on its own. Nothing that a terminal would
    obey gets there from what is told."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        event = structlog.processors.format_exc_info(logger, method, event)
        level = str(event.get("level", "info"))
        name = str(event.get("logger", ""))
        who = str(event.get("worker") or name.partition(".")[0])
        if not is_ours(name):
            who = name.partition(".")[0]
        facts = [
            f"{self._paint(key, _DIM)}={_value(value)}"
            for key, value in event.items()
            if key not in _ASIDE and value is not None
        ]
        line = [
            self._paint(time.strftime("%H:%M:%S"), _DIM),
            self._paint(f"{level:7}", _COLORS.get(level, _BOLD)),
            f"{printable(who):{_WHO}}",
            self._paint(printable(str(event.get("event", ""))), _BOLD),
            *facts,
        ]
        below = [str(event[key]) for key in ("exception", "stack") if event.get(key)]
        return "\n".join([" ".join(line), *(_lines(text) for text in below)])

    def _paint(self, text: str, color: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._colors else text


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return _value(", ".join(f"{key}: {one}" for key, one in value.items()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return _value(", ".join(map(str, value)))
    text = printable(str(value))
    return f'"{text}"' if not text or " " in text else text
