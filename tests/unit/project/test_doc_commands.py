"""Every command line on a page of the documents is one that the program takes, whether or not a
test runs it: command, options and values, by the parser itself."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from doc_pages import PAGES, ROOT, SHELL, Block, blocks, commands, inline, name
from packaging.requirements import InvalidRequirement, Requirement

from onebar.cli.common import parse_speed
from onebar.cli.main import app
from onebar.cli.training.train import _put
from onebar.training.recipe import STAGES, stage_config
from stream.simulator import config_of

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PLACEHOLDER = re.compile(r"…|\.\.\.|\||^[A-Z][A-Z_]*$|^-h$")
LACKING = re.compile("Missing|requires an argument|NoArgsIsHelpError")
PARSER = typer.main.get_command(app)
OTHERS = (
    *(
        "[",
        "cd",
        "command",
        "cut",
        "curl",
        "date",
        "docker",
        "echo",
        "export",
        "helm",
        "jq",
        "kubectl",
    ),
    *(
        "granian",
        "node",
        "npm",
        "openssl",
        "printf",
        "promtool",
        "rsync",
        "sha256sum",
        "sleep",
        "tail",
    ),
    *("tensorboard", "torchrun", "set"),
)
"""What else the pages call."""


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for word, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*words, word))
    if not hasattr(command, "commands") or (words and command.invoke_without_command):
        yield words, command


def parse(words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """What the command would be called with; None where it only tells (`--help`, a group alone)."""
    called: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    with contextlib.ExitStack() as undo:
        for path, command in leaves(PARSER):

            def record(path: tuple[str, ...] = path, **values: Any) -> None:
                called.append((path, values))

            undo.callback(setattr, command, "callback", command.callback)
            command.callback = record
        PARSER.main(words, prog_name="onebar", standalone_mode=False)
    return called[-1] if called else None


def check_values(path: tuple[str, ...], values: dict[str, Any]) -> None:
    """Values that the command itself reads, as it reads them."""
    more = values.get("more") or ()
    if path == ("simulate",):
        config_of(dict(text.split("=", 1) for text in more))
    elif path[0] == "train" and path[-1] in STAGES:
        given: dict[str, Any] = {"dataset": "data", "out": "out"}
        for text in more:
            _put(given, text)
        stage_config(path[-1], given)
    elif path == ("train", "all"):
        for text in more:
            assert text.partition(".")[0] in STAGES, text
    elif "speed" in values:
        parse_speed(values["speed"])


def check_onebar(words: list[str]) -> None:
    try:
        called = parse(words)
    except Exception as error:
        raise AssertionError(f"onebar {shlex.join(words)}: {error}") from error
    if called is not None:
        check_values(*called)


def check_make(words: list[str]) -> None:
    named = {word for word in words if "=" not in word and not word.startswith("-")}
    assert named <= TARGETS, f"no such target: {named - TARGETS}"
    for word in words:
        if word.startswith("ARGS=") and named <= {"demo", "demo-check", "demo-check-real"}:
            check_onebar(["demo", *shlex.split(word.removeprefix("ARGS="))])


def check_python(words: list[str]) -> None:
    """A program of the repository is there, and knows the options it is given."""
    if words[0] == "-c":
        return
    if words[0] == "-m":
        assert words[1] in ("pip", "onebar", "venv"), words
        return
    program = ROOT / words[0]
    assert program.is_file(), f"{words[0]} is not there"
    beside = "".join(path.read_text() for path in program.parent.glob("*.py"))
    for word in words[1 : words.index("--") if "--" in words else None]:
        if word.startswith("--"):
            option = word.partition("=")[0]
            assert f'"{option}"' in beside, f"{words[0]} has no {option}"


def check_pip(words: list[str]) -> None:
    """Nothing of ours by its name alone: OneBar is on no index. Extras are there."""
    assert words[0] in ("install", "wheel"), words
    for word in words[1:]:
        local = re.fullmatch(r"(?:\.|/\S+\.whl|dist/\S+\.whl)(?:\[([\w,]+)\])?", word)
        if local:
            extras = set((local[1] or "").split(",")) - {""}
        elif word.startswith("-") or word == "dist":
            continue
        else:
            try:
                requirement = Requirement(word)
            except InvalidRequirement as error:
                raise AssertionError(f"pip {shlex.join(words)}: {error}") from error
            assert requirement.name != "onebar" or requirement.url, "OneBar is on no package index"
            extras = requirement.extras if requirement.name == "onebar" else set()
        assert extras <= set(EXTRAS), f"no such extra: {extras - set(EXTRAS)}"


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "onebar": check_onebar,
    "make": check_make,
    "python": check_python,
    "pip": check_pip,
}


def check(words: list[str]) -> None:
    if words[:3] == ["python", "-m", "pip"]:
        words = words[2:]
    if words[0] in CHECKS:
        CHECKS[words[0]](words[1:])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_of_blocks(page: Path) -> None:
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        text = block.text
        if block.language == "console":
            text = "".join(line for line in text.splitlines(True) if line.startswith("$ "))
        for words in commands(text):
            part = not re.fullmatch(r"[\w./-]+", words[0])  # of a text, behind a $(…) in it
            known = part or words[0] in CHECKS or words[0] in OTHERS or "/" in words[0]
            assert known, f"{name(page)}:{block.line}: what is {words[0]!r}?"
            check(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences(page: Path) -> None:
    """They may lack arguments, and have words for them; what there is, is right."""
    for text in inline(page):
        for words in commands(text):
            if any(PLACEHOLDER.search(word) for word in words):
                check_names(words)
                continue
            try:
                check(words)
            except AssertionError as error:
                if not LACKING.search(f"{error.__cause__!r} {error}"):
                    raise


def check_names(words: list[str]) -> None:
    """The command is one, and so is every option."""
    if words[0] != "onebar":
        return
    command: Any = PARSER
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    options = {o for p in command.params for o in [*p.opts, *p.secondary_opts]} | {"--help"}
    for word in rest:
        assert not word.startswith("--") or word.partition("=")[0] in options, words
    alone = command is PARSER and rest and rest[0] not in ("…", "...")
    assert not alone, f"no such command: {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_has_a_language(page: Path) -> None:
    """A block with a command in it says that it is one, or no test would look at it."""
    for block in blocks(page):
        if block.language in ("", "text"):
            assert not re.search(r"^\s*(?:\$ )?(?:onebar|make|pip) ", block.text, re.MULTILINE), (
                f"{name(page)}:{block.line}"
            )


def test_what_is_not_run_is_a_block() -> None:
    """A mark that stands above no block marks nothing."""
    for page in PAGES:
        marked: list[Block] = [block for block in blocks(page) if block.not_run]
        assert page.read_text().count("<!-- not run: ") == len(marked), name(page)


@pytest.mark.parametrize(
    "wrong",
    [
        *("onebar nothing", "onebar replay x --sped 2", "onebar replay x --speed fast"),
        *("onebar simulate --out x --set video_zip=1", "onebar simulate --out x --lang fr"),
        *("onebar train sft d --out o --set dropuot=1", "onebar models promote", "make nonsense"),
        *("make demo ARGS='--language zh'", "pip install onebar", "pip install 'onebar[train]'"),
        *("pip install '.[trian]'", "python benchmarks/nothing.py", "python deploy/ship.py run"),
        "python benchmarks/loop.py --wrok x",
    ],
)
def test_what_is_wrong_is_found(wrong: str) -> None:
    [words] = [found for found in commands(wrong) if found]
    with pytest.raises(Exception, match=r".+"):
        check(words)
