"""The command line: help and an example everywhere, and errors that are one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from onebar import __version__
from onebar.cli import main as cli
from onebar.cli import sections
from onebar.cli.sections import SECTIONS
from onebar.generator.checkpoint import SHIPPED
from stream.events import Search, encode
from stream.logs.files import EventLog

NOWHERE = "127.0.0.1:1"


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that name it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from walk(inner, (*words, name))
    else:
        yield words, command


PAGE = (Path(__file__).parents[4] / "docs" / "commands.md").read_text()
COMMANDS = dict(walk(typer.main.get_command(cli.app)))


@pytest.fixture
def onebar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in this process: (exit status, stdout, stderr)."""

    def run(*words: str, **env: str) -> tuple[int, str, str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["onebar", *words])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_the_commands_are_all_there() -> None:
    assert {" ".join(words) for words in COMMANDS} >= {
        *("demo", "up", "stream", "generator", "api", "replay", "simulate", "doctor", "version"),
        *("dead-letters list", "dead-letters show", "dead-letters replay", "topics create"),
        *("inspect video", "inspect user", "inspect request", "train sft", "train demo"),
        *("models list", "models add", "models promote", "models rollback", "models remove"),
    }


def test_every_command_stands_under_a_heading_with_its_whole_line(onebar: Any) -> None:
    status, out, _ = onebar("--help")
    assert status == 0
    assert "..." not in out.partition("Commands")[2]
    assert "\nMore:" not in out
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    flat = " ".join(out.split())
    for name in ("demo", "status", "replay", "train"):
        line = typer.main.get_command(cli.app).commands[name].get_short_help_str(1000)  # type: ignore[attr-defined]
        assert f"{name} {' '.join(line.split())}" in flat
    assert "..." not in onebar("rules", "--help")[1].partition("Commands:")[2]


def test_the_version_is_an_option_too(onebar: Any) -> None:
    assert onebar("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_an_example(words: tuple[str, ...], onebar: Any) -> None:
    status, out, _ = onebar(*words, "--help")
    assert status == 0
    said = COMMANDS[words].help or ""
    assert len(said.split("\n\n")[0].strip()) > 15
    examples = [line for line in said.splitlines() if line.strip().startswith("Example: ")]
    assert examples
    for example in examples:
        assert f"onebar {' '.join(words)}" in example
    assert "Example: " in out
    for option in COMMANDS[words].params:
        assert option.help, f"{option.name} says nothing"
    # Nothing is cut, and nothing runs over a terminal of 80 columns.
    usage, *lines = out.splitlines()  # whose dots say that there may be several
    assert "…" not in out
    assert not [line for line in lines if line.endswith("...")]
    assert max(map(len, (usage, *lines))) <= 80
    assert f"## onebar {' '.join(words)}\n" in PAGE


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_example_can_be_parsed(words: tuple[str, ...]) -> None:
    import shlex

    command = COMMANDS[words]
    for line in (command.help or "").splitlines():
        if line.strip().startswith("Example: "):
            parts = shlex.split(line.split("Example: ")[1])
            rest = parts[parts.index("onebar") + 1 + len(words) :]
            command.make_context("onebar", rest)


def test_help_is_quick_to_load() -> None:
    """What makes it slow are imports: none of the heavy ones may happen."""
    code = (
        "import sys, onebar.cli.main, typer.main; typer.main.get_command(onebar.cli.main.app);"
        "heavy = {'torch', 'faust', 'aiokafka', 'redis', 'fastapi', 'pydantic', 'rich',"
        " 'tokenizers', 'ctranslate2', 'prometheus_client', 'numpy'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["replay", "/nowhere/log.jsonl"], 2, "/nowhere/log.jsonl does not exist"),
        (["replay", "/tmp", "--format", "kuaisearch"], 2, "items.jsonl"),
        (["replay", "log", "--speed", "fast"], 2, "expected a number above 0 or max"),
        (["replay", "log", "--speed", "0"], 2, "expected a number above 0 or max"),
        (["replay", "log", "--format", "csv"], 2, "csv"),
        (["simulate"], 2, "--out"),
        (["simulate", "--out", "/nowhere/x.jsonl", "--days", "-1"], 2, "days must be"),
        (["nonsense"], 2, "nonsense"),
        (["inspect", "video"], 2, "video_id"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_status_2(
    onebar: Any, words: list[str], status: int, said: str
) -> None:
    found, out, err = onebar(*words)
    assert found == status
    assert said in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["topics", "create"],
        ["dead-letters", "list"],
        ["dead-letters", "replay"],
        ["replay", "LOG"],
    ],
    ids=" ".join,
)
def test_a_broker_that_is_away_is_one_line_and_status_1(
    onebar: Any, tmp_path: Path, words: list[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(encode(Search(event_id="e", ts=1.0, user_id="u", query="q")) + b"\n")
    words = [str(log) if word == "LOG" else word for word in words]
    status, _, err = onebar(*words, ONEBAR_KAFKA_BOOTSTRAP=NOWHERE)
    assert status == 1
    lines = [line for line in err.splitlines() if line.startswith("onebar: ")]
    assert len(lines) == 1
    assert NOWHERE in lines[0]
    assert "ONEBAR_KAFKA_BOOTSTRAP" in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["video", "user"])
def test_a_redis_that_is_away_is_one_line_and_status_1(onebar: Any, kind: str) -> None:
    status, _, err = onebar("inspect", kind, "x", ONEBAR_REDIS_URL=f"redis://{NOWHERE}/0")
    assert status == 1
    assert "ONEBAR_REDIS_URL" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", sorted(name for names in SECTIONS.values() for name in names))
def test_every_command_warns_of_what_is_no_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(sections, "warn_of_unknown", lambda: told.append(name))
    group: Any = typer.main.get_command(cli.app)
    with group.make_context("onebar", [], resilient_parsing=True) as context:
        context.resilient_parsing = False
        group.resolve_command(context, [name])
        assert bool(told) == (name not in sections.WORKERS)
        told.clear()
        group.resolve_command(context, [name, "--help"])
        assert not told


def test_what_is_no_setting_is_told_once_with_what_is_meant(onebar: Any) -> None:
    variable = "ONEBAR_TEACHERKEY"  # of a command that reads hardly any
    status, out, err = onebar("version", **{variable: "x"})
    assert status == 0
    assert f"onebar: {variable} is no setting; is ONEBAR_TEACHER_KEY meant?\n" in err
    assert variable not in out
    assert variable not in onebar("version")[2]  # in one process


def test_a_wrong_setting_is_named(onebar: Any) -> None:
    status, _, err = onebar("topics", "create", ONEBAR_PARTITIONS="many")
    assert status == 2
    assert "ONEBAR_PARTITIONS='many'" in err
    assert "Traceback" not in err


def test_models_go_through_a_registry(onebar: Any, tmp_path: Path) -> None:
    where = ("--registry", str(tmp_path / "models"))

    def ask(*words: str) -> Any:
        status, out, err = onebar("models", *words, *where, "--json")
        assert status == 0, err
        return json.loads(out)

    added = ask("add", str(SHIPPED))
    name = added["name"]
    assert added["added"]
    assert ask("list")["current"] is None
    assert ask("promote", name) == {"current": name, "promoted": True}
    assert ask("promote", name) == {"current": name, "promoted": False}
    listed = ask("list", "--verify")
    assert listed["current"] == name
    assert [model["current"] for model in listed["models"]] == [True]
    _, out, _ = onebar("models", "list", *where)
    assert out.startswith(f"* {name}")
    for words, said in (
        (("rollback",), "nothing before"),
        (("remove", name), "current checkpoint"),
        (("promote", "demo-00000000"), "models list"),
        (("add", str(tmp_path)), "no checkpoint"),
    ):
        status, out, err = onebar("models", *words, *where)
        assert (status, out) == (1, "")
        assert said in err
        assert len(err.splitlines()) == 1
    (tmp_path / "models" / "checkpoints" / name / "tokenizer.json").unlink()
    status, out, _ = onebar("models", "list", *where)
    assert status == 1
    assert "missing" in out


def test_a_registry_has_to_be_named(onebar: Any) -> None:
    status, _, err = onebar("models", "list")
    assert status == 2
    assert "ONEBAR_REGISTRY" in err
    status, _, err = onebar("models", "list", ONEBAR_REGISTRY="a", ONEBAR_CHECKPOINT="b")
    assert status == 2
    assert "ONEBAR_CHECKPOINT" in err


def test_a_bug_is_not_hidden(onebar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "print_json", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        onebar("version", "--json")


def test_simulate_writes_a_log_that_can_be_read(onebar: Any, tmp_path: Path) -> None:
    out = tmp_path / "feed.jsonl.zst"
    status, said, _ = onebar("simulate", "--out", str(out), "--events", "300", "--json")
    assert status == 0
    told = json.loads(said)
    assert told["events"] == 300
    entries = list(EventLog(out).entries())
    assert len(entries) == 300
    assert all(entry.event is not None for entry in entries)
    assert Path(told["truth"]).is_file()


def test_version_says_what_it_runs_on(onebar: Any) -> None:
    status, out, _ = onebar("version", "--json")
    assert status == 0
    assert {"onebar", "python", "aiokafka", "redis"} <= json.loads(out).keys()


def test_doctor_finds_what_is_away(onebar: Any, tmp_path: Path) -> None:
    status, out, err = onebar(
        *("doctor", "--json", "--api", f"http://{NOWHERE}"),
        ONEBAR_KAFKA_BOOTSTRAP=NOWHERE,
        ONEBAR_REDIS_URL=f"redis://:secret@{NOWHERE}/0",
        ONEBAR_CHECKPOINT=str(tmp_path / "none"),
    )
    assert status == 1
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert findings["python"]["ok"] is True
    for name in ("kafka", "topics", "redis", "checkpoint", "api"):
        assert findings[name]["ok"] is False
        assert findings[name]["advice"]
    assert "secret" not in out + err
