"""What the documents say exists: variables, links, pages, places; and what is generated is fresh.

What they say to type: test_doc_commands.py, tests/integration/test_doc_pages.py."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from doc_pages import PAGES, ROOT, blocks, name
from metrics import defined_families, defined_metrics, used_metrics
from packaging.version import Version

import onebar
from onebar.generator.checkpoint import SHIPPED
from onebar.settings import Settings
from onebar.stack.variables import names
from stream.events import from_object

OURS = ("api", "feature_store", "onebar", "stream")

OTHER = ["Makefile", "docker-compose.yml", ".ci/run", "deploy/real_servers.py"]
# Read by clients, tests and examples.
NOT_SETTINGS = {"ONEBAR_API_KEY", "ONEBAR_DATA", "ONEBAR_URL"}

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
ANCHOR = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / other for other in OTHER)], ids=name)
def test_variables_exist(page: Path) -> None:
    known = names() | NOT_SETTINGS
    named = set(re.findall(r"\bONEBAR_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
    assert named <= known, f"no such setting: {named - known}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{target} is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_metrics_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # it tells of what was
        return
    known = defined_metrics() | defined_families()
    named = used_metrics(page.read_text())
    assert named <= known, f"no such metric: {named - known}"


ROUTE = re.compile(r"\b(GET|PUT|POST|DELETE) (/(?:v1/|healthz|readyz|metrics)[^\s`\"?,;)|]*)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_routes_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    for method, route in ROUTE.findall(page.read_text()):
        like = re.escape(re.sub(r"\{[^}]*\}|\b[A-Z_]+\b", "{}", route.rstrip(".:")))
        same = re.compile(like.replace(r"\{\}", r"\{\w+\}"))
        found = [spec for path, spec in paths.items() if same.fullmatch(path)]
        assert found, f"no such route: {route}"
        assert any(method.lower() in spec for spec in found), f"{route} has no {method}"


def test_the_site_leads_to_every_page() -> None:
    """By its navigation; of the decisions their list does."""
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"[\w./-]+\.md", text)
    assert len(set(named)) == len(named)
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    others = {"decisions/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    assert set(named) == pages | others | {"clients/typescript/README.md"}


def headings(page: Path) -> set[str]:
    """What the headings of a page are called in links, on the site and in the repository alike."""
    found = set()
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for title in HEADING.findall(text):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", title).strip().lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_anchors_are_headings(page: Path) -> None:
    for target, anchor in ANCHOR.findall(page.read_text()):
        place = page.parent / target if target else page
        assert anchor in headings(place), f"{name(place)} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_data_in_blocks_is_what_it_claims_to_be(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            found = json.loads(block.text)
            for event in found if isinstance(found, list) else [found]:
                if "event_id" in event:
                    from_object(event)
        elif block.language == "toml":
            assert tomllib.loads(block.text)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_in_blocks_imports_what_is_there(page: Path) -> None:
    """docs/python.md is run as a whole; elsewhere Python is marked, and what it imports of ours is
    there."""
    for block in blocks(page):
        if block.language != "python":
            continue
        assert block.not_run or page.name == "python.md", f"{name(page)}:{block.line}"
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


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
    lost = {p for p in named if not (ROOT / p).exists() and not (page.parent / p).exists()}
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


def test_the_readme_tells_what_the_shipped_checkpoint_says_of_itself() -> None:
    training = json.loads((SHIPPED / "onebar.json").read_text())["training"]
    text = " ".join((ROOT / "README.md").read_text().split())
    for part in ("composed", "simulated"):
        found = training["held_out"][part]
        value, low, high = found["hr@8"]
        told = f"{found['clicks']:,} clicks: HR@8 {value:.3f} [{low:.3f}, {high:.3f}]"
        assert f"{told} where the anchors alone have {found['anchors_hr@8'][0]:.3f}" in text
    simulated = training["held_out"]["simulated"]
    assert f"rejects {simulated['reject_recall'][0]:.0%}".replace("%", " %") in text
    assert f"{training['parameters'] / 1e6:.1f} million parameters" in text


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
