"""One check after the other, none of which raises."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import ssl
import urllib.parse
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from onebar.errors import OneBarError
from onebar.recommending.loading import open_configured
from onebar.settings import Settings
from onebar.stack.doctor import here, servers
from onebar.stack.doctor.finding import Check, Finding, run


async def examine(settings: Settings, api_url: str | None = None) -> list[Finding]:
    """Check everything a worker or the API stands on, and the API itself where one is named."""
    findings = [
        here.python(),
        *here.extras(),
        here.codecs(),
        *here.variables(os.environ),
        *here.security(settings),
        *here.disks(settings),
    ]
    start = "start it, or set {}; `onebar up` starts an embedded one"

    def of(check: Callable[[Settings], Coroutine[Any, Any, list[Finding]]]) -> Check:
        return partial(check, settings)

    kafka = await run("kafka", of(servers.kafka), start.format("ONEBAR_KAFKA_BOOTSTRAP"))
    topics = await run("topics", of(servers.topics), "mend Kafka first")
    redis = await run("redis", of(servers.redis), start.format("ONEBAR_REDIS_URL"))
    findings += kafka + topics + redis
    readable = all(finding.ok for finding in kafka + topics)
    if readable:
        findings += await run("workers", of(servers.workers), "mend Kafka first")
        findings += await run("dead letters", of(servers.letters), "onebar dead-letters list")
    if readable and redis[0].ok:
        findings += await run("state", of(servers.state), "mend Kafka and Redis first")
    findings += await run(
        "checkpoint",
        of(_checkpoint),
        "set ONEBAR_CHECKPOINT to a checkpoint's directory, or ONEBAR_REGISTRY to a registry",
    )
    if api_url is not None:
        ask = partial(asyncio.to_thread, _ask_api, api_url, settings)
        advice = "start it with `onebar api`, or name another with --api"
        findings += await run("api", ask, advice)
    return findings


async def _checkpoint(settings: Settings) -> list[Finding]:
    opened = await asyncio.to_thread(open_configured, settings)
    engine = "CTranslate2" if opened.has_ctranslate2 else "torch"
    source = "" if settings.registry is None else f", current in {settings.registry}"
    return [Finding("checkpoint", True, f"{opened.name}, for {engine}{source}")]


class WrongApiError(OneBarError, RuntimeError):
    """What answers there is no API of OneBar."""


PARTS = ("kafka", "redis", "model")
"""What an API says of itself at /readyz."""


def readiness(url: str, settings: Settings) -> tuple[int, dict[str, Any]]:
    """Status and answer of an API's /readyz. Raises as `get` does."""
    status, body = get(url, "/readyz", settings)
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or any(name not in told for name in PARTS):
        raise WrongApiError(
            f"what answers at {url} is no API of OneBar: status {status} with {body[:60]!r}"
        )
    return status, told


def get(url: str, path: str, settings: Settings) -> tuple[int, str]:
    """Status and text of what an API answers, trusting the certificate that it is set to have.
    Raises `WrongApiError` where that is no HTTP, `OSError` and `ValueError`."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"expected http://HOST:PORT, got {url!r}")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=settings.api_tls_client_ca)
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=5, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(2_000_000).decode(errors="replace")
    except http.client.HTTPException as error:
        raise WrongApiError(f"what answers at {url} speaks no HTTP: {error!r:.80}") from error
    finally:
        connection.close()


def _ask_api(url: str, settings: Settings) -> list[Finding]:
    status, told = readiness(url, settings)
    facts = ((name, value) for name, value in told.items() if name != "ready")
    said = ", ".join(f"{name}: {value}" for name, value in facts if value is not None)
    if status != 200:
        found = f"{url} is not ready ({status}): {said}"
        return [Finding("api", False, found, "mend what it names")]
    if told.get("warning"):
        found = f"{url} is ready, but {told['warning']}"
        return [Finding("api", False, found, "mend or roll back: see `onebar models list`")]
    model = told.get("checkpoint") or "no model of its own"
    return [Finding("api", True, f"{url} is ready, and answers with {model}")]
