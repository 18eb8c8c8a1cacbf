"""The files that run OneBar elsewhere agree with the program: commands, variables, metrics.

What docker-compose.yml starts is started in tests/integration/test_compose.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose
import pytest
import typer.main
import yaml
from metrics import defined_metrics, labels_of, used_metrics

from api.http.auth import KeyRing, parse_api_keys
from onebar.cli.main import app
from onebar.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
GPU = DEPLOY / "compose.gpu.yml"
SECRETS = {"ONEBAR_API_KEYS": f"read:{'0' * 64}", "GRAFANA_PASSWORD": "of mine"}
COMPOSE: dict[str, Any] = compose.read(SECRETS)
OURS = sorted(n for n, service in COMPOSE["services"].items() if service["image"] == "onebar")
WORKERS = {"stream", "generator", "neighbors", "map-topic", "api"}


def test_the_services_are_all_there() -> None:
    assert {"kafka", "redis", "prometheus", "grafana", "topics-init", *WORKERS} == set(
        COMPOSE["services"]
    )
    assert set(OURS) == {"topics-init", *WORKERS}


@pytest.mark.parametrize("service", OURS)
def test_compose_runs_commands_that_exist(service: str) -> None:
    command: Any = typer.main.get_command(app)
    words = list(COMPOSE["services"][service]["command"])
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), "a group of commands does nothing by itself"
    command.make_context("onebar", words)


@pytest.mark.parametrize("service", OURS)
def test_compose_sets_settings_that_exist(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = COMPOSE["services"][service]["environment"]
    fields = {f"ONEBAR_{field.upper()}" for field in Settings.model_fields}
    assert set(environment) <= fields
    for variable, value in environment.items():
        monkeypatch.setenv(variable, str(value))
    settings = Settings()
    assert settings.kafka_bootstrap == "kafka:9092"


@pytest.mark.parametrize("service", sorted(COMPOSE["services"]))
def test_every_service_is_watched_and_bounded(service: str) -> None:
    described = COMPOSE["services"][service]
    build = described.get("build", {})
    assert build.get("target", "serve") == "serve"
    limits = described["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    if service != "topics-init":  # ends by itself
        assert described["healthcheck"]["test"]
    for port in described.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "published on loopback only"
    for volume in described.get("volumes", ()):
        source = volume.split(":")[0]
        if source in ("./embedder", "./map.toml"):
            continue  # the operator's own
        there = (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]
        assert there, f"{source} is not there"


def test_prometheus_asks_where_the_workers_answer() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    asked = {
        name: found["port"]
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    environment = {name: COMPOSE["services"][name]["environment"] for name in WORKERS}
    assert asked == {
        "stream": int(environment["stream"]["ONEBAR_METRICS_PORT"]),
        "generator": int(environment["generator"]["ONEBAR_METRICS_PORT"]),
        "neighbors": int(environment["neighbors"]["ONEBAR_METRICS_PORT"]),
        "map-topic": int(environment["map-topic"]["ONEBAR_METRICS_PORT"]),
        "api": int(environment["api"]["ONEBAR_API_PORT"]),
    }
    for rules in config["rule_files"]:
        assert (DEPLOY / "prometheus" / Path(rules).name).is_file()


@pytest.mark.parametrize("path", ["prometheus/alerts.yml", "grafana/dashboards/onebar.json"])
def test_metrics_that_are_watched_exist(path: str) -> None:
    used = used_metrics((DEPLOY / path).read_text())
    assert used
    assert used <= defined_metrics(), f"no such metric: {used - defined_metrics()}"


def parts(page: str) -> dict[str, str]:
    """The text below each heading, by the anchor that the heading has."""
    pieces = re.split(r"^#+ (.+)\n", page, flags=re.MULTILINE)
    anchors = (re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in pieces[1::2])
    return dict(zip(anchors, pieces[2::2], strict=True))


def test_alerts_say_what_to_do() -> None:
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    operations = parts((ROOT / "docs" / "operations.md").read_text())
    for rule in rules:
        always = rule["alert"] == "OneBarWatchdog"
        assert rule["labels"]["severity"] in ({"none"} if always else {"page", "ticket"})
        assert {"summary", "description", "runbook"} == set(rule["annotations"])
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        assert f"| {rule['alert']} |" in operations[anchor], "its line of the runbook"
    named = set(re.findall(r"\bOneBar[A-Z]\w+", "".join(operations.values())))
    assert named == {rule["alert"] for rule in rules}


def test_alerts_fire_when_they_should_and_not_before() -> None:
    folder = DEPLOY / "prometheus"
    rules = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    cases = yaml.safe_load((folder / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    rests = {check["alertname"] for check in checks if not check["exp_alerts"]}
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    assert fires == names
    assert rests == names - {"OneBarWatchdog"}
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "Debian's package prometheus has promtool"
        pytest.skip("promtool is not installed (Debian: prometheus)")
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "onebar.json").read_text())
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
SCRAPED = {"namespace", "job", "instance", "le"}
"""Labels that Prometheus gives every series, or a histogram's."""


def test_each_series_of_a_panel_has_a_letter_of_its_own() -> None:
    for panel in DASHBOARD["panels"]:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters), panel["title"]


def test_the_dashboard_shows_every_metric() -> None:
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used_metrics(ALL)}
    # A command that ends by itself is not scraped.
    assert {name.removesuffix("_total") for name in labels_of()} - shown == {
        "onebar_archive_records"
    }


ALL = " ".join(target["expr"] for target in TARGETS)


def test_each_series_is_of_what_was_chosen_and_has_its_labels() -> None:
    known = labels_of()
    for target in TARGETS:
        expr, legend = target["expr"], target["legendFormat"]
        series = re.findall(r"\b((?:onebar|process)_\w+|up)\b(\{[^}]*\})?", expr)
        assert series
        every = set(SCRAPED)
        for name, selector in series:
            for variable in ("namespace", "job", "instance"):
                assert f'{variable}=~"${variable}"' in selector, expr
            labels = known.get(re.sub(r"_(total|bucket|sum|count)$", "", name), set())
            assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", selector)) <= labels | SCRAPED, expr
            every |= labels
        grouped = re.findall(r"by \(([^)]*)\)", expr)
        assert {each for by in grouped for each in by.split(", ")} <= every, expr
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= every, expr


def test_prometheus_reads_what_the_dashboard_asks(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "Debian's package prometheus has promtool"
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = [
        {"record": f"panel:{n}", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for n, target in enumerate(TARGETS)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": rules}]}))
    command = ["promtool", "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_panels_ask_prometheus() -> None:
    dashboard = DASHBOARD
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for variable in dashboard["templating"]["list"]:
        assert variable["datasource"]["uid"] == "prometheus"
    chosen = [variable["query"] for variable in dashboard["templating"]["list"]]
    asked = json.dumps([panel["targets"] for panel in panels] + chosen)
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"])
    used = set(re.findall(r"\$(\w+)", asked)) - {"__rate_interval"}
    assert used == {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        assert panel["datasource"]["uid"] == "prometheus"
        assert all(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("path", [compose.FILE, GPU], ids=lambda path: path.name)
def test_compose_files_are_what_the_specification_says(path: Path) -> None:
    program = [sys.executable, "-m", "check_jsonschema"]
    command = [*program, "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_starts_without_the_secrets() -> None:
    assert compose.wanted() == set(SECRETS)
    for missing in SECRETS:
        with pytest.raises(compose.MissingVariableError, match=f"{missing}: run deploy/make_env"):
            compose.read({**SECRETS, missing: ""})
    grafana = COMPOSE["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == SECRETS["GRAFANA_PASSWORD"]


def test_the_example_names_each_variable_that_is_read() -> None:
    text = (ROOT / ".env.example").read_text()
    told = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    left = {"KAFKA_CLUSTER_ID", "TRAIN_IMAGE"}
    assert told == (compose.named() | compose.named(GPU)) - left
    assert compose.env_file(ROOT / ".env.example") == dict.fromkeys(SECRETS, "")


def test_made_secrets_are_new_each_time_and_for_the_owner_alone(tmp_path: Path) -> None:
    def make(name: str) -> tuple[dict[str, str], str]:
        script = [DEPLOY / "make_env.sh", tmp_path / name]
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
        return compose.env_file(tmp_path / name), done.stdout

    (first, said), (second, _) = make("a"), make("b")
    assert set(first) == set(second) == set(SECRETS)
    assert all(first[name] != second[name] and len(first[name]) >= 48 for name in SECRETS)
    key = re.findall(r": ([0-9a-f]{48})\n", said)[0]
    ring = KeyRing(parse_api_keys((first["ONEBAR_API_KEYS"],)))
    found = ring.find(key.encode())
    assert found is not None
    assert found.scopes == {"read", "write", "admin"}
    again = subprocess.run([DEPLOY / "make_env.sh", tmp_path / "a"], capture_output=True)
    assert again.returncode == 1
    assert compose.env_file(tmp_path / "a") == first
