"""The rules of the house: who may import whom, and which client library lives where."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = ("feature_store", "onebar", "stream", "api")
EXCEPTIONS = {"Exception", "ValueError", "RuntimeError", "LookupError", "OSError"}

_BASE = (
    *("onebar.addresses", "onebar.errors", "onebar.records", "onebar.policy", "onebar.settings"),
    "onebar.process",
)
_STATE = ("feature_store.*",)

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    # The method: a library that stands alone.
    # The front door: loads each name of the Python API from its room when it is asked for.
    "onebar": (
        *("onebar.client", "onebar.errors", "onebar.evaluation", "onebar.evidence"),
        *("onebar.recommending", "onebar.records", "onebar.training", "onebar.triggers"),
    ),
    "onebar.client": ("onebar.errors", "onebar.records"),
    "onebar.errors": (),
    "onebar.records": (),
    "onebar.policy": (),
    "onebar.addresses": (),
    "onebar.settings": ("onebar.addresses", "onebar.errors", "onebar.policy"),
    "onebar.process": ("onebar.errors", "onebar.settings"),
    "onebar.evidence": _BASE,
    "onebar.triggers": (*_BASE, "onebar.evidence"),
    "onebar.generator": (*_BASE, "onebar.evidence"),
    "onebar.summaries": (*_BASE, "onebar.evidence"),
    "onebar.training": (*_BASE, "onebar.evidence", "onebar.triggers", "onebar.generator"),
    "onebar.embedding": (*_BASE, "onebar.evidence", "onebar.triggers", "onebar.training"),
    "onebar.gating": (*_BASE, "onebar.evidence"),
    "onebar.ranking": (*_BASE, "onebar.evidence"),
    "onebar.recommending": (
        *(*_BASE, "onebar.evidence", "onebar.gating", "onebar.generator", "onebar.embedding"),
        "onebar.ranking",
    ),
    "onebar.learning": (
        *(*_BASE, "onebar.evidence", "onebar.triggers", "onebar.gating", "onebar.generator"),
        *("onebar.ranking", "onebar.recommending", "onebar.evaluation"),
    ),
    "onebar.teaching": (
        *(*_BASE, "onebar.evidence", "onebar.triggers", "onebar.gating", "onebar.recommending"),
    ),
    "onebar.evaluation": (
        *(*_BASE, "onebar.evidence", "onebar.triggers", "onebar.generator"),
        *("onebar.embedding", "onebar.ranking", "onebar.recommending"),
    ),
    "onebar.bench": (*_BASE, "onebar.generator"),
    # Everything that speaks Redis.
    "feature_store.redis": _BASE,
    "feature_store.writes": _BASE,
    "feature_store.keys": _BASE,
    "feature_store.buckets": (*_BASE, "feature_store.writes"),
    "feature_store.reactions": (*_BASE, "feature_store.writes"),
    "feature_store.repeats": (*_BASE, "feature_store.writes"),
    "feature_store.snapshot": (*_BASE, "feature_store.buckets"),
    "feature_store.plan": (
        *(*_BASE, "feature_store.buckets", "feature_store.keys", "feature_store.writes"),
        *("feature_store.reactions", "feature_store.redis", "feature_store.repeats"),
        "feature_store.snapshot",
    ),
    "feature_store.memory": (
        *(*_BASE, "feature_store.buckets", "feature_store.reactions", "feature_store.repeats"),
        *("feature_store.snapshot", "feature_store.writes"),
    ),
    "feature_store.store": (
        *(*_BASE, "feature_store.buckets", "feature_store.keys", "feature_store.plan"),
        *("feature_store.reactions", "feature_store.redis", "feature_store.snapshot"),
        "feature_store.writes",
    ),
    "feature_store.repertoire": (
        *(*_BASE, "feature_store.buckets", "feature_store.keys", "feature_store.plan"),
        *("feature_store.redis", "feature_store.snapshot"),
    ),
    "feature_store.opening": (
        *(*_BASE, "feature_store.cache", "feature_store.keys", "feature_store.redis"),
        *("feature_store.repertoire", "feature_store.store", "feature_store.versions"),
    ),
    "feature_store.versions": (
        *(*_BASE, "feature_store.buckets", "feature_store.keys", "feature_store.plan"),
        "feature_store.redis",
    ),
    "feature_store.limits": (*_BASE, "feature_store.keys", "feature_store.redis"),
    "feature_store.cache": (
        *(*_BASE, "feature_store.buckets", "feature_store.keys", "feature_store.plan"),
        "feature_store.redis",
    ),
    # Events in Kafka and in files.
    "stream.events": (
        *(*_BASE, "onebar", "onebar.evidence", "onebar.gating", "feature_store.writes"),
    ),
    "stream.kafka": (*_BASE, "feature_store.writes", "stream.events"),
    "stream.workers": (
        *(*_BASE, *_STATE, "onebar.evidence", "onebar.recommending", "onebar.embedding"),
        *("onebar.gating", "stream.events", "stream.kafka"),
    ),
    "stream.logs": (
        *(*_BASE, *_STATE, "onebar.evidence", "onebar.summaries"),
        *("stream.events", "stream.kafka", "stream.workers"),
    ),
    "stream.rebuild": (
        *(*_BASE, *_STATE, "onebar.gating", "onebar.recommending", "stream.events"),
        *("stream.kafka", "stream.workers"),
    ),
    "stream.mapping": (
        *(*_BASE, "stream.events", "stream.kafka", "stream.logs", "stream.workers"),
    ),
    "stream.archive": (
        *(*_BASE, "onebar.evidence", "onebar.gating", "stream.events", "stream.kafka"),
        *("stream.workers", "stream.logs"),
    ),
    "stream.answers": (*_BASE, "stream.archive", "stream.events", "stream.kafka"),
    "stream.dataset": (
        *(*_BASE, "onebar.evidence", "onebar.gating", "onebar.triggers"),
        *("onebar.embedding", "feature_store.buckets", "stream.events"),
    ),
    "stream.simulator": (
        *(*_BASE, "onebar.client", "onebar.evidence", "onebar.evaluation", "onebar.triggers"),
        *("stream.events", "stream.logs"),
    ),
    # HTTP.
    "api": (),
    "api.http": (*_BASE, "api", "feature_store.redis", "stream.events"),
    "api.edge": (*_BASE, "api.http"),
    "api.breaker": (*_BASE, "api.http"),
    "api.connections": (*_BASE, "api.http"),
    "api.publisher": (*_BASE, "api.breaker", "api.http", "stream.events"),
    "api.answering": (
        *(*_BASE, *_STATE, "api.breaker", "api.http", "onebar.gating", "onebar.generator"),
        "onebar.recommending",
    ),
    "api.watching": (
        *(*_BASE, *_STATE, "api.answering", "onebar.evidence", "onebar.gating"),
        "onebar.recommending",
    ),
    "api.console": (*(*_BASE, "onebar.evidence", "onebar.generator", "onebar.recommending"),),
    "api.peers": (*_BASE, "api.http"),
    "api.health": (*_BASE, *_STATE, "api.answering", "api.http", "api.peers", "api.publisher"),
    "api.services": (
        *(*_BASE, *_STATE, "api.answering", "api.breaker", "api.edge", "api.health", "api.http"),
        *("api.peers", "api.publisher", "api.watching", "onebar.evidence", "onebar.gating"),
        *("onebar.recommending", "stream.events", "stream.kafka"),
    ),
    "api.routes": (
        *(*_BASE, *_STATE, "api.answering", "api.http", "api.services", "onebar.evidence"),
        *("api.console", "api.edge", "api.watching", "onebar", "onebar.gating", "onebar.generator"),
        *("onebar.recommending", "stream.events", "stream.logs", "stream.mapping"),
    ),
    "api.app": (
        *(*_BASE, "onebar", "api.edge", "api.http", "api.routes", "api.services"),
        "onebar.recommending",
    ),
    "api.server": (
        *(*_BASE, "api", "api.app", "api.connections", "api.http", "api.watching"),
        "onebar.recommending",
    ),
}
"""What each package or module of the second level may import of ours, besides itself. The command
line and the local stack are not in it: they may import all."""
TOP_PLACES = {"onebar.cli", "onebar.stack", "onebar.__main__"}
ONLY_IN: dict[str, set[str]] = {
    "redis": {
        *("feature_store.redis.client", "feature_store.redis.connection"),
        "feature_store.redis.login",
    },
    "faust": {"stream.workers.faust_app"},
    "opentelemetry": {"onebar.process.tracing"},
    "aiokafka": {
        *("stream.kafka.clients", "stream.kafka.connection"),
        *("stream.kafka.consumer", "stream.kafka.producer"),
        *("stream.kafka.facts", "stream.kafka.lag", "stream.kafka.topics"),
    },
}


def modules() -> dict[str, Path]:
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def place(module: str) -> str:
    """The room of the house that a module is in: a package, or a part of one."""
    return ".".join(module.split(".")[:2])


TOP = {name for name in MODULES if place(name) in TOP_PLACES}
"""The command line and the local stack: may import all, are imported by none but each other."""


@cache
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


def allowed(room: str, other: str) -> bool:
    return any(
        other == each or (each.endswith(".*") and other.startswith(each[:-1]))
        for each in MAY_IMPORT[room]
    )


@pytest.mark.parametrize("name", sorted(set(MODULES) - TOP))
def test_imports_keep_to_the_table(name: str) -> None:
    room = place(name)
    # A package that is named on the way to a module in it is not what is imported.
    found = imports(name) & set(MODULES)
    found -= {each for each in found if any(within(other, each) for other in found - {each})}
    rooms = {place(module) for module in found} - {room}
    assert {other for other in rooms if not allowed(room, other)} == set()


def test_the_table_has_one_direction_and_every_room() -> None:
    rooms = {place(name) for name in MODULES} - TOP_PLACES - {"feature_store", "stream"}
    assert set(MAY_IMPORT) == rooms
    graph = {
        room: {other for other in MAY_IMPORT if other != room and allowed(room, other)}
        for room in MAY_IMPORT
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_no_folder_holds_more_than_thirteen_files() -> None:
    """A folder with more has more than one purpose."""
    folders = {path.parent for path in MODULES.values()}
    counts = {
        str(folder.relative_to(ROOT)): sum(
            path.name != "__init__.py" for path in folder.glob("*.py")
        )
        for folder in folders
    }
    assert {folder: count for folder, count in counts.items() if count > 13} == {}


def test_every_error_of_ours_has_one_root() -> None:
    """So that `except OneBarError` catches them, and the command line tells them in one line."""
    roots = {"OneBarError", "UsageError"}
    bases: dict[str, set[str]] = {}
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names = {ast.unparse(base).split(".")[-1] for base in node.bases}
                bases.setdefault(node.name, set()).update(names)
    exceptions = {name for name, of in bases.items() if name.endswith("Error") or of & EXCEPTIONS}

    def rooted(name: str) -> bool:
        return name in roots or any(rooted(base) for base in bases.get(name, ()))

    public = {name for name in exceptions - roots if not name.startswith("_")}
    assert {name for name in public if not rooted(name)} == set()


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
        ("stream.workers.generator", ("torch", "transformers", "faust")),
        ("stream.workers.stream", ("torch", "transformers", "ctranslate2")),
        ("stream.workers.neighbors", ("torch", "transformers", "sentence_transformers", "faust")),
        ("onebar.cli.main", ("torch", "transformers", "faust", "redis", "aiokafka", "fastapi")),
        (
            "onebar.recommending.recommend",
            ("torch", "transformers", "redis", "aiokafka", "fastapi"),
        ),
        ("feature_store.memory", ("redis", "stream", "api")),
        ("onebar", ("feature_store", "stream", "api", "torch", "pydantic", "msgspec", "httpx")),
        ("onebar.recommending.model", ("feature_store", "torch", "pydantic", "httpx")),
        ("onebar.client.clients", ("feature_store", "stream", "api", "torch", "pydantic")),
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
    light = [
        name
        for name in names
        if not name.startswith(("onebar.training", "onebar.generator.engine"))
    ]
    code = (
        "import os, socket, importlib\n"
        "os.environ['ONEBAR_PARTITIONS'] = 'not a number'\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
