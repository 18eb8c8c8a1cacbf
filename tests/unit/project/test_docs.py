"""What the documents say exists: commands, options, variables, make targets, links, pages."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from packaging.version import Version

import onebar
from onebar.cli.main import app
from onebar.settings import Settings
from onebar.stack.variables import names

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("docs", "docs/decisions", "examples", ".github", ".github/ISSUE_TEMPLATE")
PAGES = sorted([*ROOT.glob("*.md"), *(page for f in FOLDERS for page in (ROOT / f).glob("*.md"))])
OTHER = ["Makefile", "docker-compose.yml", ".ci/run", "deploy/real_servers.py"]
# Read by tests, not by the program.
NOT_SETTINGS = {"ONEBAR_DATA"}

FENCE = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:onebar|make) [^`]+)`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
ASSIGNMENT = re.compile(r"^[A-Z_]+=\S*$")
# A name of the documents' own, to be replaced by the reader's: onebar replay LOG, onebar X | jq
END_OF_COMMAND = ("|", "&", "&&", ">", ";")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[list[str]]:
    """Every command line that a page shows, split into words, without its variables."""
    text = page.read_text()
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall(text)]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    for line in [*lines, *INLINE.findall(text)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a here-document or a quote over several lines
            words = line.split()
        if "--" in words[:8] and "real_servers.py" in line:
            words = words[words.index("--") + 1 :]
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        for end in END_OF_COMMAND:
            if end in words:
                words = words[: words.index(end)]
        if words:
            yield [word.removeprefix(".venv/bin/") for word in words]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_onebar_commands_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] != "onebar":
            continue
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        assert command.name != "onebar" or not rest or rest[0] in ("--help", "--version", "…"), (
            f"no such command: {' '.join(words)}"
        )
        options = {o for p in command.params for o in [*p.opts, *p.secondary_opts]} | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"no such option: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            named = {word for word in words[1:] if "=" not in word}
            assert named <= targets, f"no such target: {named - targets}"


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / other for other in OTHER)], ids=name)
def test_variables_exist(page: Path) -> None:
    known = names() | NOT_SETTINGS
    named = set(re.findall(r"\bONEBAR_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
    assert named <= known, f"no such setting: {named - known}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{target} is not there"


def test_every_make_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert phony
    explained = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert set(phony[1].replace("\\\n", " ").split()) == explained


def test_configuration_page_is_what_the_settings_say() -> None:
    maker = load(ROOT / "docs" / "make_configuration.py")
    assert (ROOT / "docs" / "configuration.md").read_text() == maker.page(), "run: make schemas"
    listed = {field for fields in maker.sections().values() for field in fields}
    assert listed == set(Settings.model_fields)


def test_commands_page_is_what_the_commands_say() -> None:
    maker = load(ROOT / "docs" / "make_commands.py")
    assert (ROOT / "docs" / "commands.md").read_text() == maker.page(), "run: make schemas"


def test_the_openapi_document_is_what_the_server_serves() -> None:
    maker = load(ROOT / "docs" / "make_openapi.py")
    assert (ROOT / "docs" / "openapi.json").read_text() == maker.document(), "run: make schemas"


def test_every_page_is_led_to() -> None:
    """From the README, in however many steps."""
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        linked = {(page.parent / target).resolve() for target in LINK.findall(page.read_text())}
        waiting += [other for other in linked - found if other.suffix == ".md"]
    lost = {name(page) for page in PAGES if page.parent.name != "ISSUE_TEMPLATE"}
    lost -= {name(page) for page in found}
    assert lost <= {".github/PULL_REQUEST_TEMPLATE.md"}


PLACE = re.compile(
    r"`((?:api|benchmarks|deploy|docs|examples|feature_store|onebar|stream|tests)/[\w./-]*)`"
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_places_named_are_there(page: Path) -> None:
    """`stream/events/fold.py`, `feature_store/`: of the tree as it is now."""
    if page.name == "CHANGELOG.md":
        return
    named = {place for place in PLACE.findall(page.read_text()) if "..." not in place}
    lost = {place for place in named if not (ROOT / place).exists()}
    assert lost == set()


def test_ten_rules_are_found_where_contributing_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## Where is the rule that …")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| …")]
    assert len(rows) >= 10
    for question, answer in rows:
        files = PLACE.findall(answer)
        assert files, f"{question.strip()}: no file"
        for file in files:
            assert (ROOT / file).is_file(), f"{question.strip()}: {file} is not there"
        # The name that the answer gives stands in one of the files that it gives.
        for word in re.findall(r"`(\w+)`", answer):
            said = "".join((ROOT / file).read_text() for file in files)
            assert re.search(rf"\b{word}\b", said), f"{word} is not in {files}"


def test_contributing_maps_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for package in ("api", "feature_store", "onebar", "stream")
        for path in (ROOT / package).glob("**/__init__.py")
    }
    rooms = {name for name in packages if name.count("/") <= 2}
    assert {room for room in rooms if f"`{room}`" not in text} == set()


def test_the_changelog_and_the_version_agree() -> None:
    """`Unreleased` stands above the last release; the version is that release's, or on its way
    to a later one."""
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased"
    released = Version(heads[1].split()[0])
    here = Version(onebar.__version__)
    assert here == released or (here.is_devrelease and here > released)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
