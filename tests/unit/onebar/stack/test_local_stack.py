"""What the local stack makes of its settings, before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import onebar.stack.local
from onebar.settings import Settings
from onebar.stack.local import LocalStack, PortTakenError
from onebar.stack.variables import environment, variables

NAMES = ("ONEBAR_KAFKA_BOOTSTRAP", "ONEBAR_REDIS_URL")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The embedded servers that were asked for; none is started."""
    asked: list[str] = []

    def server(name: str, address: str) -> object:
        return lambda children, directory: asked.append(name) or address

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(onebar.stack.local, "start_broker", server("broker", "127.0.0.1:1"))
    monkeypatch.setattr(onebar.stack.local, "start_valkey", server("valkey", "redis://h:1/0"))
    return asked


def complete(settings: Settings, path: Path) -> Settings:
    return LocalStack(settings, path, own_names=False)._complete(settings)


def test_servers_that_nobody_named_are_started(tmp_path: Path, started: list[str]) -> None:
    settings = complete(Settings(), tmp_path)
    assert started == ["broker", "valkey"]
    assert (settings.kafka_bootstrap, settings.redis_url) == ("127.0.0.1:1", "redis://h:1/0")
    assert not settings.idempotent_producer


def test_servers_that_the_settings_name_are_used(tmp_path: Path, started: list[str]) -> None:
    given = Settings(kafka_bootstrap="kafka:9092", redis_url="redis://redis:6379/0")
    settings = complete(given, tmp_path)
    assert started == []
    assert settings.kafka_bootstrap == "kafka:9092"
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.idempotent_producer


def test_so_are_those_that_the_environment_names(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBAR_KAFKA_BOOTSTRAP", "kafka:9092")
    settings = complete(Settings(), tmp_path)
    assert started == ["valkey"]
    assert (settings.kafka_bootstrap, settings.redis_url) == ("kafka:9092", "redis://h:1/0")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"127.0.0.1:{port} already"):
            complete(Settings(api_port=port), tmp_path)


def test_a_child_gets_the_settings_and_nothing_else_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEBAR_GENERATION", "g7")
    monkeypatch.setenv("ONEBAR_NAMESPACE", "elsewhere")
    monkeypatch.setenv("UNRELATED", "stays")
    settings = Settings(namespace="mine", state_version="g1", api_keys=("read:a", "write:b"))
    env = environment(settings)
    assert env["UNRELATED"] == "stays"
    assert variables(settings) == {
        "ONEBAR_NAMESPACE": "mine",
        "ONEBAR_STATE_VERSION": "g1",  # set, it pins, though it is the default
        "ONEBAR_API_KEYS": "read:a,write:b",
    }
    ours = {name: value for name, value in env.items() if name.startswith("ONEBAR_")}
    assert variables(settings).items() <= ours.items()
    assert "ONEBAR_GENERATION" not in env
