"""Kafka with a login over TLS, Redis with an ACL user over TLS, the API over TLS: the whole path,
every login, and what is said where one is refused."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import eventually, onebar, workers

from deploy.real_servers import STRANGER, Security, missing_programs, real_servers
from feature_store.opening import open_store
from feature_store.redis.client import (
    Command,
    StoreUnavailableError,
    StoreUnfitError,
    connect,
    pipelined,
)
from feature_store.redis.fitness import acl_rule
from onebar.settings import Settings
from onebar.stack.doctor.servers import topics
from onebar.stack.servers import free_port
from onebar.stack.variables import variables
from stream.events.pseudonyms import Pseudonyms
from stream.kafka.topics import KafkaUnavailableError, KafkaUnfitError, partition_counts

pytestmark = pytest.mark.integration

KEY = "a key of more than sixteen"


@pytest.fixture(scope="module")
def secure(servers: Any) -> Iterator[dict[str, str]]:
    """The variables that connect to servers of this file's own."""
    if servers.embedded:
        pytest.skip("has servers of its own, and needs no second run")
    if missing := missing_programs():
        pytest.fail(f"not installed: {missing}", pytrace=False)
    with real_servers(secure=True) as names:
        yield names


@pytest.fixture
def settings(secure: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read from those variables, passwords from files."""
    for name, value in secure.items():
        monkeypatch.setenv(name, value)
    return Settings(showable_users=1, session_timeout_s=6.0, heartbeat_interval_s=1.0)


def security(settings: Settings) -> Security:
    assert settings.kafka_tls_ca is not None
    return Security(settings.kafka_tls_ca.parent, "onebar", settings.redis_password)


async def test_an_event_goes_in_over_tls_and_counts(settings: Settings, tmp_path: Path) -> None:
    """Through a user of Redis who may do what `doctor` says is needed, and no more. Its user is
    known by a pseudonym everywhere, and found and forgotten by their own id."""
    made = security(settings)
    admin = open_store(settings)
    rule = acl_rule("worker", settings.namespace, ">another-password").split()[1:]
    await admin.client.execute_command("ACL", "SETUSER", *rule)
    await admin.close()
    secured = settings.model_copy(
        update={
            "redis_username": "worker",
            "redis_password": "another-password",
            "metrics_port": free_port(),
            "api_port": free_port(),
            "api_generate": False,
            "user_id_key": KEY,
            "api_tls_certificate": made.certificate("server"),
            "api_tls_key": made.key("server"),
            "api_tls_client_ca": made.authority,
        }
    )
    with workers(secured, tmp_path) as running:
        stream, api = running.start("stream"), running.start("api")
        await running.ready(stream, secured, 90.0)
        url = f"https://127.0.0.1:{secured.api_port}"
        event = {
            "type": "search",
            "event_id": "e1",
            "ts": 1_760_000_000.0,
            "user_id": "u1",
            "video_id": "v1",
            "query": "red boots",
        }
        async with httpx.AsyncClient(verify=made.context()) as http:

            async def taken() -> bool:
                api.check()
                try:
                    return (await http.post(f"{url}/v1/events", json=event)).status_code == 202
                except httpx.TransportError:
                    return False

            await eventually(taken, 60.0)
            store = open_store(secured)
            try:
                await eventually(lambda: store.history(Pseudonyms(KEY).of("u1")))
                assert await store.history("u1") == ()
                mine = f"{url}/v1/users/u1"
                assert "red boots" in (await http.get(f"{mine}/history")).text
                assert (await http.delete(mine)).status_code == 204
                assert "red boots" not in (await http.get(f"{mine}/history")).text
            finally:
                await store.close()
        stranger = ssl.create_default_context(cafile=made.authority)
        async with httpx.AsyncClient(verify=stranger) as http:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await http.get(f"{url}/healthz")
        assert running.stop(stream) == 0
        for child in (stream, api):
            assert settings.redis_password not in child.log.read_text()
            assert "another-password" not in child.log.read_text()


@pytest.mark.parametrize(
    "login",
    [
        {"kafka_sasl_mechanism": "PLAIN"},
        {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
        {
            "kafka_sasl_mechanism": "OAUTHBEARER",
            "kafka_token_provider": "tokens:unsigned",
        },
    ],
)
async def test_every_login_is_taken(settings: Settings, login: dict[str, str]) -> None:
    await partition_counts(settings.model_copy(update=login))


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "password": ({"kafka_sasl_password": "wrong"}, KafkaUnfitError, "ONEBAR_KAFKA_SASL_USERNAME"),
    "authority": ({"kafka_tls_ca": None}, KafkaUnfitError, "ONEBAR_KAFKA_TLS_CA"),
    "no certificate": (
        {"kafka_tls_certificate": None, "kafka_tls_key": None},
        KafkaUnavailableError,
        "a certificate",
    ),
    "plain text": ({"kafka_security_protocol": "PLAINTEXT"}, KafkaUnavailableError, "want TLS"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_kafka_says_why_it_refuses(settings: Settings, name: str) -> None:
    change, kind, hint = WRONG[name]
    with pytest.raises(kind, match=hint) as caught:
        await partition_counts(settings.model_copy(update=change))
    assert settings.kafka_sasl_password not in str(caught.value)


async def test_doctor_tells_a_topic_that_is_hidden_from_one_that_is_missing(
    settings: Settings,
) -> None:
    nobodys = settings.model_copy(update={"topic_prefix": "nobodys."})
    [missing] = await topics(nobodys)
    assert missing.ok is False
    assert "missing: nobodys.onebar.videos" in missing.found
    login = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": STRANGER}
    [hidden] = await topics(nobodys.model_copy(update=login))
    assert hidden.ok is False
    assert "may not see nobodys.onebar.videos" in hidden.found
    assert "Describe" in hidden.advice


WRONG_REDIS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "password": ({"redis_password": "wrong"}, StoreUnfitError, "ONEBAR_REDIS_PASSWORD"),
    "nobody": ({"redis_username": "", "redis_password": ""}, StoreUnfitError, "ONEBAR_REDIS_USER"),
    "authority": ({"redis_tls_ca": None}, StoreUnfitError, "ONEBAR_REDIS_TLS_CA"),
    "no certificate": (
        {"redis_tls_certificate": None, "redis_tls_key": None},
        StoreUnavailableError,
        "agree on TLS|a client's certificate",
    ),
}


@pytest.mark.parametrize("name", WRONG_REDIS)
async def test_redis_says_why_it_refuses(settings: Settings, name: str) -> None:
    change, kind, hint = WRONG_REDIS[name]
    store = open_store(settings.model_copy(update=change))
    try:
        with pytest.raises(kind, match=hint) as caught:
            await store.probe()
        assert settings.redis_password not in str(caught.value)
    finally:
        await store.close()


async def test_a_login_stands_in_the_url_as_well(settings: Settings) -> None:
    url = settings.redis_url.replace("//", f"//onebar:{settings.redis_password}@")
    store = open_store(settings.model_copy(update={"redis_url": url, "redis_username": "other"}))
    try:
        assert await store.probe() is None
    finally:
        await store.close()
    bare = connect(url.replace("127.0.0.1", "127.0.0.9"), timeout_s=0.5)
    with pytest.raises(StoreUnavailableError) as caught:
        await pipelined(bare, [Command("PING", ())])
    await bare.aclose()
    assert settings.redis_password not in str(caught.value)


async def test_nothing_that_is_printed_has_a_password(
    settings: Settings, secure: dict[str, str]
) -> None:
    password = settings.redis_password
    url = settings.redis_url.replace("//", f"//onebar:{password}@")
    done: subprocess.CompletedProcess[str] = await asyncio.to_thread(
        onebar, "doctor", "--json", env={**secure, "ONEBAR_REDIS_URL": url}
    )
    assert settings.redis_url in done.stdout
    wrong = await asyncio.to_thread(
        onebar, "doctor", env={**secure, "ONEBAR_REDIS_URL": f"redis://onebar:{password}@h:x/"}
    )
    assert wrong.returncode == 2
    assert "ONEBAR_REDIS_URL" in wrong.stderr
    shown = variables(settings, secrets=False)
    for text in (done.stdout, done.stderr, wrong.stdout, wrong.stderr, repr(settings), str(shown)):
        assert password not in text
