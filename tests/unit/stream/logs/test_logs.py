"""Log lines are one JSON object each, whoever wrote them."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from onebar.process.logging import configure_logging


def test_both_kinds_of_logger_write_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("info", json=True)
        structlog.get_logger("onebar.x").info("batch_done", prompts=3)
        logging.getLogger("other").warning("careful %s", "now")
        structlog.get_logger("onebar.x").debug("too_quiet")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert [line["event"] for line in lines] == ["batch_done", "careful now"]
    assert lines[0]["prompts"] == 3
    assert lines[0]["level"] == "info"
    assert lines[1]["logger"] == "other"
