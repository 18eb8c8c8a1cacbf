"""What every process does first."""

from __future__ import annotations

import os
from collections.abc import Mapping

import structlog

from onebar.process.logging import configure_logging
from onebar.settings import Settings, unknown_variables

log = structlog.get_logger(__name__)


def begin(settings: Settings, worker: str) -> None:
    """Log as these settings say, in this worker's name, and warn of variables that nothing reads: a
    slip of the pen there is a setting that has no effect."""
    configure_logging(settings.log_level, settings.log_json, worker)
    for name, nearest in unknown_variables(os.environ).items():
        log.warning("unknown_setting", variable=name, meant=nearest or None)


def unknown_told(environment: Mapping[str, str]) -> list[str]:
    """The same as lines for people."""
    return [
        f"{name} is no setting"
        + (f"; is {nearest} meant?" if nearest else ": docs/configuration.md lists them all")
        for name, nearest in unknown_variables(environment).items()
    ]
