"""What is shipped: every package outright, everything in it, and no torch where none is needed."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import onebar

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP_LEVEL = ("api", "feature_store", "onebar", "stream")


def source_files(package: str) -> set[str]:
    """Everything under a package's folder that is no build result."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def build(kind: str, source: Path) -> Path:
    """The `wheel` or `sdist` of a source tree, in its `dist`."""
    code = f"from setuptools import build_meta as b; b.build_{kind}('dist')"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (source / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy: the tree stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in TOP_LEVEL:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return build("sdist", copy)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as a release's is."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return build("wheel", source)


def test_packages_are_named_outright() -> None:
    named = PROJECT["tool"]["setuptools"]["packages"]
    present = {
        init.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in TOP_LEVEL
        for init in (ROOT / package).rglob("__init__.py")
    }
    assert isinstance(named, list), "a list of names, not a search for packages"
    assert sorted(named) == sorted(present)


def pins() -> dict[str, list[Requirement]]:
    """The lines of constraints.txt by name; a name has several where it depends on the Python."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def test_every_requirement_is_pinned_to_a_release_that_it_allows() -> None:
    project = PROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    pinned = pins()
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        name = canonicalize_name(requirement.name)
        if name == "onebar":
            continue
        assert name in pinned, f"{name} is not in constraints.txt: make lock"
        for pin in pinned[name]:
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert requirement.specifier.contains(exact.version), f"{pin}: make lock"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_tested_python_has_one_release_of_each(python: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
    }
    for name, lines in pins().items():
        chosen = [p for p in lines if p.marker is None or p.marker.evaluate(environment)]
        assert len(chosen) <= 1, f"{name}: {chosen}"


def test_constraints_name_no_place_to_get_them_from() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"https?:|file:| @ |^-", text, re.MULTILINE)


def test_private_members_of_a_library_have_an_upper_bound() -> None:
    """Each file that a dependency's comment names is there, and the requirement has a bound."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    noted = [line for line in lines if re.search(r'^    ".*", # .*\.py$', line)]
    assert len(noted) >= 6
    for line in noted:
        requirement = Requirement(line.split('"')[1])
        assert "<" in {specifier.operator for specifier in requirement.specifier}
        for file in re.findall(r"[\w/]+\.py", line.split("#")[1]):
            assert (ROOT / file).is_file(), f"{file} is not there"


def test_the_version_is_said_once() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "onebar.__version__"}


@pytest.mark.parametrize("package", TOP_LEVEL)
def test_the_wheel_holds_all_of_a_package(wheel: Path, package: str) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(f"{package}/")}
    assert f"{package}/py.typed" in shipped
    assert shipped == source_files(package)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(TOP_LEVEL)


NEEDED = (
    *("api/static/index.html", "api/static/page.js", "api/static/operations.html"),
    *("onebar/generator/checkpoints/demo/ct2/model.bin", "onebar/evidence/data/*.txt"),
    *("stream/mapping/maps/*.toml", "feature_store/redis/lua/*.lua", "onebar/gating/data/risk.tsv"),
    *("onebar/recommending/data/ranker.json", "onebar/generator/checkpoints/demo/lexicon*"),
)
"""What is no code and nothing works without: the page, the checkpoint, mappings, scripts, lists."""


@pytest.mark.parametrize("pattern", NEEDED)
def test_the_wheel_has_what_is_no_code(wheel: Path, pattern: str) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert fnmatch.filter(names, pattern)


def test_the_metadata_are_valid_and_say_what_it_is(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        of_wheel = Metadata.from_email(archive.read(name))  # refuses what an index would
    with tarfile.open(sdist) as unpacked:
        (member,) = [
            each for each in unpacked if each.name.count("/") == 1 and "PKG-INFO" in each.name
        ]
        file = unpacked.extractfile(member)
        assert file is not None
        of_sdist = Metadata.from_email(file.read())
    assert of_wheel.name == of_sdist.name == "onebar"
    assert str(of_wheel.version) == str(of_sdist.version) == onebar.__version__
    assert of_wheel.license_expression == "Apache-2.0"
    assert of_wheel.description_content_type == "text/markdown"
    assert of_wheel.description == (ROOT / "README.md").read_text()
    assert set(of_wheel.provides_extra or ()) == set(PROJECT["project"]["optional-dependencies"])


def test_the_source_distribution_holds_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    made = {"PKG-INFO", "setup.cfg", "onebar.egg-info"}
    assert tops == {*TOP_LEVEL, *made, "pyproject.toml", "README.md", "LICENSE"}


# Runs with the wheel on its path. Every module of a distribution that `pip install onebar` would
# not bring refuses to be imported, so what passes here works without the extras.
WITHOUT_EXTRAS = """
import importlib.abc, importlib.metadata as metadata, re, sys
from packaging.requirements import Requirement

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

brought, waiting = set(), [Requirement(text) for text in {requirements!r}]
while waiting:
    requirement = waiting.pop()
    extras = requirement.extras or {{""}}
    if requirement.marker and not any(requirement.marker.evaluate({{"extra": e}}) for e in [""]):
        continue
    key = (canonical(requirement.name), frozenset(extras))
    if key in brought:
        continue
    brought.add(key)
    for text in metadata.distribution(requirement.name).requires or ():
        child = Requirement(text)
        if child.marker is None or any(child.marker.evaluate({{"extra": e}}) for e in extras):
            child.marker = None
            waiting.append(child)
names = {{name for name, _ in brought}}
blocked = {{
    module
    for module, distributions in metadata.packages_distributions().items()
    if not names & {{canonical(d) for d in distributions}}
}} - {{"api", "feature_store", "onebar", "stream"}}
assert {{"torch", "pytest"}} <= blocked, "the check itself needs the dev environment"

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is no dependency of onebar", name=name)

for module in [m for m in sys.modules if m.split(".")[0] in blocked]:
    del sys.modules[module]
sys.meta_path.insert(0, Refuse())
import {module}
print(sorted({{"torch", "transformers", "faust"}} & sys.modules.keys()))
print(sys.modules["{module}"].__file__)
"""


@pytest.mark.parametrize(
    ("module", "loaded"),
    [
        ("api.app", "[]"),
        ("onebar.cli.main", "[]"),
        ("onebar.generator.ct2", "[]"),
        ("stream.workers.generator", "[]"),
        ("stream.workers.faust_app", "['faust']"),
    ],
)
def test_works_without_extras(wheel: Path, tmp_path: Path, module: str, loaded: str) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = WITHOUT_EXTRAS.format(requirements=PROJECT["project"]["dependencies"], module=module)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    imported, file = done.stdout.splitlines()[-2:]
    assert imported == loaded
    assert file.startswith(str(tmp_path)), "the wheel's own module was to be imported"
