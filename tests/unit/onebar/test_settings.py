"""Settings that can't be right are refused by name, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from onebar.settings import Settings


@pytest.mark.parametrize(
    "value", ["localhost", "localhost:abc", ":", "a:1,b", "a:0", "a:70000", ""]
)
def test_a_kafka_address_needs_host_and_port(value: str) -> None:
    with pytest.raises(ValidationError, match="host:port"):
        Settings(kafka_bootstrap=value)


@pytest.mark.parametrize(
    "value", ["http://x", "localhost:6379", "redis://", "redis://h:abc", "redis://h/abc", ""]
)
def test_a_redis_url_is_one(value: str) -> None:
    with pytest.raises(ValidationError, match="redis_url"):
        Settings(redis_url=value)


@pytest.mark.parametrize(
    "value",
    [
        "redis://h",
        "redis://:secret@h:6379/3",
        "rediss://h:6380/0?ssl_cert_reqs=none",
        "redis+cluster://h:7000",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_urls_of_every_scheme_are_taken(value: str) -> None:
    assert Settings(redis_url=value, kafka_bootstrap="a:9092,b:9092,[::1]:9092").redis_url == value


def test_a_checkpoint_and_a_registry_are_one_too_many() -> None:
    with pytest.raises(ValidationError, match="ONEBAR_CHECKPOINT is set as well") as caught:
        Settings(checkpoint=Path("one"), registry=Path("models"))
    assert [fault["loc"] for fault in caught.value.errors()] == [("registry",)]
    empty = Settings.model_validate({"checkpoint": "", "registry": "models"})
    assert (empty.checkpoint, empty.registry) == (None, Path("models"))
    empty = Settings.model_validate({"checkpoint": "one", "registry": ""})
    assert (empty.checkpoint, empty.registry) == (Path("one"), None)


def test_the_version_of_the_state_is_read_by_its_old_name_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().state_version == "g1"
    monkeypatch.setenv("ONEBAR_GENERATION", "g2")
    assert Settings().state_version == "g2"
    assert Settings(state_version="g4").state_version == "g4"
    monkeypatch.setenv("ONEBAR_STATE_VERSION", "g3")
    assert Settings().state_version == "g3"


FLOATS = [name for name, field in Settings.model_fields.items() if "float" in str(field.annotation)]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", ["inf", "1e400", "nan"])
def test_a_number_is_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ONEBAR_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [fault["loc"] for fault in caught.value.errors()] == [(name,)]
