"""Log lines for people: one line with the facts, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest
import structlog

from onebar.process.lines import Lines
from onebar.process.logging import configure_logging
from onebar.process.start import begin
from onebar.settings import Settings

FIELDS = {"level": "info", "logger": "stream.workers.stream", "timestamp": "x", "worker": "stream"}


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def line(**event: object) -> str:
    return Lines(colors=False)(None, "info", {**FIELDS, **event})


def test_a_line_has_the_time_the_level_who_what_and_the_facts() -> None:
    found = line(event="topics_created", topics=["a", "b"], lag=3, after_s=1.23456789, x=None)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info    stream    topics_created "
        r'topics="a, b" lag=3 after_s=1.23457',
        found,
    )
    assert " aiokafka " in line(event="x", logger="aiokafka.conn")
    assert " onebar " in line(event="x", logger="onebar.x", worker="")
    assert line(event="x", said="two words", none="").endswith('said="two words" none=""')


def test_nothing_that_a_terminal_would_obey_gets_through() -> None:
    hostile = "\x1b]0;title\x07\r\nforged"
    for found in (
        line(event=hostile),
        line(event="e", said=hostile),
        line(event="e", said=[hostile]),
    ):
        assert "\x1b" not in found
        assert "\n" not in found


def test_a_traceback_stands_below_its_line_without_local_variables() -> None:
    secret = "key" + "123"
    try:
        raise ValueError(f"broken\x1b[2J {len(secret)}")
    except ValueError as error:
        first, *rest = line(event="failed", exc_info=error).split("\n")
    assert first.endswith("failed")
    assert rest[0].startswith("Traceback")
    assert "key123" not in "".join(rest)
    assert "\x1b" not in "".join(rest)


@pytest.mark.usefixtures("restored")
def test_libraries_say_only_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", json=False, worker="stream")
    logging.getLogger("library.x").info("Joined group")
    logging.getLogger("library.x").warning("Heartbeat failed")
    structlog.get_logger("onebar.x").info("batch_done", prompts=3)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "library   Heartbeat failed" in said[0]
    assert said[1].endswith("stream    batch_done prompts=3")


class Stderr(io.StringIO):
    """A terminal, or none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("terminal", "setting", "json"),
    [(True, "", False), (False, "", True), (True, "true", True), (False, "false", False)],
)
def test_a_terminal_has_lines_and_a_pipe_json(
    terminal: bool, setting: str, json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBAR_LOG_JSON", setting)
    monkeypatch.setattr(sys, "stderr", Stderr(terminal))
    begin(Settings(), "stream")
    structlog.get_logger("onebar.x").warning("lag_unknown", error="none")
    assert isinstance(sys.stderr, Stderr)
    said = sys.stderr.getvalue().splitlines()[-1]
    assert said.startswith("{") == json
    assert ("\x1b[33mwarning" in said) == (terminal and not json)
    assert "lag_unknown" in said
    assert "stream" in said
