"""Logging for every process: structlog, one event a line, for people or as JSON."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

import structlog

from onebar.process.lines import Lines, is_ours


class Subject(Protocol):
    """What is being worked on, such as an HTTP request."""

    def told(self) -> Mapping[str, str]:
        """What log lines say of it."""


SUBJECT: ContextVar[Subject | None] = ContextVar("onebar_subject", default=None)
"""What the work of this task is about."""

# Local variables hold API keys and what users typed: neither belongs into a log.
_WITHOUT_LOCALS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _about(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    subject = SUBJECT.get()
    if subject is not None:
        for name, value in subject.told().items():
            event.setdefault(name, value)
    return event


class _Quiet(logging.Filter):
    """Of libraries only what is wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or is_ours(record.name)


def configure_logging(level: str = "info", json: bool | None = True, worker: str = "") -> None:
    """Send structlog's and the standard library's records to stderr in one shape.

    `level` is debug, info, warning or error. `json` gives one JSON object a line, else lines for
    people, coloured on a terminal, on which libraries say only what is wrong; None decides by
    whether stderr is a terminal. `worker` is who says it. Calling again replaces what was set.
    """
    terminal = sys.stderr.isatty()
    json = not terminal if json is None else json

    def named(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if worker:
            event["worker"] = worker
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _about,
        named,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [_WITHOUT_LOCALS, structlog.processors.JSONRenderer()] if json else [Lines(colors=terminal)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    if not json and level != "debug":
        handler.addFilter(_Quiet())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
