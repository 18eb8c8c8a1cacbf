"""Secrets: read from files, and in nothing that is shown, whatever is wrong with them."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.http.auth import ApiKeyError, parse_api_keys
from feature_store.redis.client import connect
from onebar.addresses import shown_url
from onebar.cli import main as cli
from onebar.settings import Settings, SettingsFileError, is_secret, unknown_variables
from onebar.stack.variables import environment, names, variables

SECRETS = [name for name in Settings.model_fields if is_secret(name)]
# Long enough that no text has it by chance; with whatever a URL is taken apart by.
passwords = st.text(st.sampled_from("#%/?@:,&=[] +abcXYZ019ü"), min_size=1, max_size=12).map(
    lambda text: f"s3{text}cr3t"
)
schemes = st.sampled_from(
    ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "unix", "http", ""]
)
hosts = st.sampled_from(["h", "h:6379", "h:x", "h:0", "", "h,h2:1", "[::1]:1", "h:6379:"])
paths = st.sampled_from(["", "/", "/0", "/x", "/mymaster/0", "/mymaster/x", "/0?db=1", "/0#1"])


def parts_of(password: str) -> list[str]:
    """What an error could repeat of it: each piece that a URL is cut into."""
    pieces = [password]
    for mark in "#/?@:,&=":
        pieces += password.split(mark)
    return [piece for piece in pieces if len(piece) > 3]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(schemes, st.sampled_from(["", "user"]), passwords, hosts, paths)
def test_no_part_of_a_password_stands_in_an_error_or_in_what_is_shown(
    scheme: str, user: str, password: str, host: str, path: str
) -> None:
    url = f"{scheme}://{user}:{password}@{host}{path}"
    told = [shown_url(url)]
    try:
        made = Settings(redis_url=url)
    except ValidationError as error:
        told += [str(error), repr(error), said_of(error)]
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - which one is what this is about
            connect(url, timeout_s=1)
        told.append(str(caught.value))
    else:
        told += [repr(made), str(made), str(variables(made, secrets=False))]
        assert variables(made)["ONEBAR_REDIS_URL"] == url
    for text in told:
        for piece in parts_of(password):
            assert piece not in text


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(["", "SASL_SSL://", "kafka://"]), passwords, hosts)
def test_no_part_of_a_password_of_kafka_is_taken_for_an_address(
    scheme: str, password: str, host: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(kafka_bootstrap=f"{scheme}user:{password}@{host}")
    for text in (str(caught.value), repr(caught.value), said_of(caught.value)):
        for piece in parts_of(password):
            assert piece not in text


@pytest.mark.parametrize("query", ["bad=1", "s3cr3t", "protocol=x", "db=", "timeout=inf"])
@pytest.mark.parametrize("url", ["redis://h", "redis+sentinel://h/m", "unix:///run/redis"])
def test_what_a_url_of_redis_has_behind_is_known_or_refused(url: str, query: str) -> None:
    with pytest.raises(ValidationError, match="behind the"):
        Settings(redis_url=f"{url}?{query}")
    Settings(redis_url=f"{url}?socket_timeout=2.5&password=x")


@pytest.mark.parametrize("entry", ["a:s3cr3t:nonsense", "s3cr3t:" + "0" * 64, "read+s3cr3t:00"])
def test_a_key_in_the_wrong_place_is_not_repeated(entry: str) -> None:
    with pytest.raises(ApiKeyError, match="entry 1") as caught:
        parse_api_keys([entry])
    assert "s3cr3t" not in str(caught.value)


def said_of(error: Exception) -> str:
    """What the command line makes of it."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert cli._say_faults_of_settings(error)
    return err.getvalue()


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_not_shown(name: str) -> None:
    value: Any = ("s3cr3t-of-theirs",) if name == "api_keys" else "s3cr3t-of-theirs"
    made = Settings.model_construct(**{name: value})
    assert "s3cr3t" not in repr(made)
    assert "s3cr3t" not in str(made)
    assert "s3cr3t" not in str(variables(made, secrets=False))


def test_what_is_short_is_refused_without_a_word_of_it() -> None:
    with pytest.raises(ValidationError, match="16 characters") as caught:
        Settings(user_id_key="s3cr3t")
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in said_of(caught.value)


@pytest.mark.parametrize("name", [*SECRETS, "log_level", "state_version"])
def test_any_setting_is_read_from_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "redis_url": "rediss://u:p@h:1/0",
        "log_level": "error",
        "api_keys": "read:" + "0" * 64,
    }
    text = values.get(name, "a secret of some length")
    path = tmp_path / "value"
    path.write_text(f"{text}\n")
    variable = f"ONEBAR_{name.upper()}"
    with mock.patch.dict(os.environ):
        for each in names():
            os.environ.pop(each, None)
        if name == "kafka_sasl_password":
            monkeypatch.setenv("ONEBAR_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
            monkeypatch.setenv("ONEBAR_KAFKA_SASL_USERNAME", "u")
        monkeypatch.setenv(f"{variable}_FILE", str(path))
        made = Settings()
        found = getattr(made, name)
        assert (",".join(found) if isinstance(found, tuple) else found) == text
        # A child is told the value, and not by two names.
        assert environment(made)[variable] == text
        assert f"{variable}_FILE" not in environment(made)
        assert unknown_variables(os.environ) == {}
        monkeypatch.setenv(variable, "something else")
        with pytest.raises(SettingsFileError, match=f"{variable} and {variable}_FILE"):
            Settings()


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEBAR_TEACHER_KEY_FILE", "/nowhere/at/all")
    with pytest.raises(SettingsFileError, match="ONEBAR_TEACHER_KEY_FILE=/nowhere/at/all: No such"):
        Settings()


def test_a_slip_of_the_pen_is_told_with_the_nearest_name() -> None:
    told = unknown_variables(
        {
            "ONEBAR_REDIS_ULR": "",
            "ONEBAR_KAFKA_SASL_PASWORD_FILE": "",
            "ONEBAR_WEATHER": "",
            "ONEBAR_GENERATION": "",
            "ONEBAR_DATA": "",
            "PATH": "",
        }
    )
    assert told == {
        "ONEBAR_REDIS_ULR": "ONEBAR_REDIS_URL",
        "ONEBAR_KAFKA_SASL_PASWORD_FILE": "ONEBAR_KAFKA_SASL_PASSWORD_FILE",
        "ONEBAR_WEATHER": "",
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "ONEBAR_KAFKA_SASL_USERNAME"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"},
            "ONEBAR_KAFKA_TOKEN_PROVIDER",
        ),
        ({"kafka_sasl_username": "u", "kafka_sasl_password": "p"}, "SASL_SSL"),
        ({"kafka_tls_key": "k"}, "ONEBAR_KAFKA_TLS_CERTIFICATE"),
        ({"redis_tls_key": "k"}, "ONEBAR_REDIS_TLS_CERTIFICATE"),
        ({"api_tls_certificate": "c"}, "ONEBAR_API_TLS_KEY"),
        ({"api_tls_client_ca": "c"}, "ONEBAR_API_TLS_CERTIFICATE"),
        ({"trusted_proxies": "10.0.0.1,elsewhere"}, "elsewhere"),
    ],
)
def test_settings_that_need_another_say_which(given: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        Settings.model_validate(given)
    assert told in said_of(caught.value)
