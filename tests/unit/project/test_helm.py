"""The Helm chart agrees with the program: settings, commands, ports, endpoints, metrics.

What Kubernetes makes of it is for `make helm-check`, which renders it; nothing here needs helm.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from onebar.cli.main import app
from onebar.settings import Settings
from onebar.stack.variables import names
from stream.workers.health import group_topics

ROOT = Path(__file__).resolve().parents[3]
HELM = ROOT / "deploy" / "helm"
CHART = HELM / "onebar"
TEMPLATES = sorted((CHART / "templates").iterdir())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
CASES = sorted([*(HELM / "cases").glob("*.yaml"), *(HELM / "cases" / "refused").glob("*.yaml")])
PARTS = {"api", "stream", "generator", "neighbors", "map-topic"}
READ = re.compile(r"(?:\$root|\$)?\.Values((?:\.\w+)+)")


def name(path: Path) -> str:
    return path.relative_to(HELM).as_posix()


def text_of_templates() -> str:
    return "".join(path.read_text() for path in TEMPLATES)


def unknown(given: dict[str, Any], known: dict[str, Any], path: str = "") -> set[str]:
    """Keys of `given` that `known` has not; below an empty mapping anything may stand."""
    found = set()
    for key, value in given.items():
        if key not in known:
            found.add(path + key)
        elif isinstance(value, dict) and isinstance(known[key], dict) and known[key]:
            found |= unknown(value, known[key], f"{path}{key}.")
    return found


@pytest.mark.parametrize("path", [*TEMPLATES, CHART / "values.yaml", *CASES], ids=name)
def test_settings_named_exist(path: Path) -> None:
    named = set(re.findall(r"\bONEBAR_[A-Z0-9_]*[A-Z0-9]\b", path.read_text()))
    assert named <= names(), f"no such setting: {named - names()}"


def test_parts_are_commands() -> None:
    commands: Any = typer.main.get_command(app)
    assert set(commands.commands) >= PARTS
    run = {key for key, value in VALUES.items() if isinstance(value, dict) and "resources" in value}
    assert run == PARTS


@pytest.mark.parametrize("part", sorted(PARTS))
def test_settings_of_values_are_valid(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in VALUES[part]["config"].items():
        monkeypatch.setenv(variable, str(value))
    Settings()


def test_templates_read_values_that_exist() -> None:
    for path in READ.findall(text_of_templates()):
        value: Any = VALUES
        for key in path.strip(".").split("."):
            if isinstance(value, dict) and not value:
                break  # the operator's own
            assert key in value, f".Values{path}: values.yaml has no {key}"
            value = value[key]


@pytest.mark.parametrize("path", CASES, ids=name)
def test_cases_set_values_that_exist(path: Path) -> None:
    assert unknown(yaml.safe_load(path.read_text()), VALUES) == set()


def test_documents_set_values_that_exist() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert unknown(yaml.safe_load(block), VALUES) == set()


def test_nothing_secret_has_a_default() -> None:
    assert VALUES["existingSecret"] == ""
    assert VALUES["redis"]["url"] == ""
    assert "@" not in (CHART / "values.yaml").read_text()
    assert "kind: Secret" not in text_of_templates()
    assert VALUES["api"]["secrets"] == {"ONEBAR_API_KEYS": "api-keys"}


def test_probes_ask_endpoints_that_are_there() -> None:
    deployments = (CHART / "templates" / "deployments.yaml").read_text()
    asked = set(re.findall(r"httpGet: \{path: (/\w+)", deployments))
    asked.add(VALUES["api"]["readinessPath"])
    assert asked == {"/healthz", "/readyz", "/metrics"}
    api = (ROOT / "api" / "routes" / "operations.py").read_text()
    worker = (ROOT / "stream" / "workers" / "metrics.py").read_text()
    assert all(f'"{path}"' in api for path in asked)
    assert all(f'"{path}"' in worker for path in ("/healthz", "/metrics"))


def test_autoscaling_starts_within_its_bounds() -> None:
    for part in PARTS:
        scaling = VALUES[part]["autoscaling"]
        if scaling["enabled"]:
            assert 1 <= scaling["minReplicas"] <= scaling["maxReplicas"]
    for part in ("stream", "generator"):
        assert VALUES[part]["autoscaling"]["maxReplicas"] <= VALUES["kafka"]["partitions"]


def test_lag_is_asked_by_the_label_that_workers_give_it() -> None:
    """It names the kind of worker, so it stays what it is when the state version changes."""
    scaling = (CHART / "templates" / "scaling.yaml").read_text()
    assert "matchLabels: {group: {{ $part }}}" in scaling
    for part in PARTS:
        if VALUES[part]["autoscaling"].get("lag"):
            assert part in group_topics(Settings())


def test_metrics_asked_of_the_adapter_are_those_that_it_makes() -> None:
    rules = yaml.safe_load((HELM / "prometheus-adapter.yaml").read_text())["rules"]
    made = {kind: {rule["name"]["as"] for rule in rules[kind]} for kind in rules}
    lag = {VALUES[part]["autoscaling"]["lag"]["metric"] for part in ("stream", "generator")}
    assert made["external"] == lag
    assert made["custom"] == {VALUES["api"]["autoscaling"]["latency"]["metric"]}
    code = "".join(
        path.read_text()
        for package in ("api", "stream")
        for path in (ROOT / package).rglob("metrics.py")
    )
    for rule in [*rules["external"], *rules["custom"]]:
        series = re.findall(r"\bonebar_\w+", rule["seriesQuery"])
        assert series
        assert all(f'"{one.removesuffix("_bucket")}"' in code for one in series)


def test_the_user_is_the_images() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    user = re.findall(r"^USER (\d+)", dockerfile, re.MULTILINE)[-1]
    deployments = (CHART / "templates" / "deployments.yaml").read_text()
    assert f"runAsUser: {user}\n" in deployments
