"""The rules of the house: who may import whom, and which client library lives where."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("feature_store", "onebar", "stream", "api")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "feature_store": ("feature_store",),
    "onebar": ("onebar", "feature_store.records"),
    "stream": ("stream", "feature_store", "onebar"),
    "api": ("api", "feature_store", "onebar", "stream.events", "stream.producer"),
}
ONLY_IN: dict[str, set[str]] = {
    "redis": {"feature_store.client", "feature_store.pipe"},
    "faust": {"stream.app"},
    "aiokafka": {"stream.consumer", "stream.producer", "stream.topics"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()
TOP = {
    name for name in MODULES if name.startswith(("onebar.cli", "onebar.commands", "onebar.local"))
}
"""The command line and the local stack: may import all, are imported by none but each other."""


def imports(name: str) -> set[str]:
    """Every module that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            module = node.module or ""
            found.add(module)
            found |= {
                f"{module}.{alias.name}"
                for alias in node.names
                if f"{module}.{alias.name}" in MODULES
            }
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in OURS}


@pytest.mark.parametrize("name", sorted(set(MODULES) - TOP))
def test_imports_go_in_one_direction(name: str) -> None:
    package = name.split(".")[0]
    allowed = MAY_IMPORT[package]
    if name == "onebar.settings":
        allowed += ("feature_store.policy",)
    wrong = {
        module
        for module in ours(imports(name))
        if not any(within(module, each) or within(each, module) for each in allowed)
    }
    assert wrong == set()


@pytest.mark.parametrize("name", sorted(set(MODULES) - TOP))
def test_nothing_imports_the_command_line_or_the_local_stack(name: str) -> None:
    assert not imports(name) & TOP


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_each_client_library_lives_in_one_place(library: str) -> None:
    users = {name for name in MODULES if any(within(module, library) for module in imports(name))}
    assert users == ONLY_IN[library]


def test_keys_are_made_in_one_place() -> None:
    tags = ("{v:", "{u:", "{d:", "{{v:", "{{u:", "{{d:")
    makers = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr) and any(tag in ast.unparse(node) for tag in tags)
    }
    assert makers == {"feature_store.keys"}


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("api.app", ("torch", "transformers", "faust")),
        ("stream.generator", ("torch", "transformers", "faust")),
        ("stream.worker", ("torch", "transformers", "ctranslate2")),
        ("stream.neighbors", ("torch", "transformers", "sentence_transformers", "faust")),
        ("onebar.cli", ("torch", "transformers", "faust", "redis", "aiokafka", "fastapi")),
        ("onebar.recommend", ("torch", "transformers", "redis", "aiokafka", "fastapi")),
        ("feature_store.memory", ("redis", "onebar", "stream", "api")),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module: str, banned: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {banned!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_reads_no_environment_and_opens_nothing() -> None:
    names = [name for name in MODULES if name not in TOP and not name.endswith("__main__")]
    light = [name for name in names if not name.startswith(("onebar.training", "onebar.engines"))]
    code = (
        "import os, socket, importlib\n"
        "os.environ['ONEBAR_PARTITIONS'] = 'not a number'\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
