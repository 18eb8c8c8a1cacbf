"""Who connects to Redis, over what, and by which Sentinels."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from onebar.addresses import split_redis_url
from onebar.errors import UsageError

SENTINEL_PORT = 26379


class Login(Struct, frozen=True):
    """Who connects, where the URL does not say, and by which certificates TLS is spoken.

    `authorities` are a PEM file; those of the system where it is None.
    """

    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    check_hostname: bool = True

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


NO_LOGIN = Login()


class RedisSecurityError(UsageError, ValueError):
    """A certificate that the settings name is not there, or not fit."""


def tls_options(login: Login) -> dict[str, Any]:
    """redis-py's own names; looked at here, as it would say what is wrong only when it connects."""
    try:
        context = ssl.create_default_context(cafile=login.authorities)
        if login.certificate is not None:
            context.load_cert_chain(login.certificate, login.key, lambda: "")
    except OSError as error:  # an SSLError among them
        named = [str(path) for path in (login.authorities, login.certificate, login.key) if path]
        said = error.strerror or str(error)
        raise RedisSecurityError(
            f"ONEBAR_REDIS_TLS_CA, _CERTIFICATE or _KEY ({', '.join(named)}): {said}"
        ) from error
    names = {
        "ssl_ca_certs": login.authorities,
        "ssl_certfile": login.certificate,
        "ssl_keyfile": login.key or login.certificate,
    }
    found: dict[str, Any] = {name: str(path) for name, path in names.items() if path}
    return found | {"ssl_check_hostname": login.check_hostname}


def sentinel_pool(url: str, login: Login, options: dict[str, Any]) -> SentinelConnectionPool:
    """A pool whose connections lead to the primary that the Sentinels name at that moment."""
    parts, servers, path = split_redis_url(url)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if parts.scheme == "rediss+sentinel":
        tls["ssl"] = True
        options |= tls
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(host, port or SENTINEL_PORT) for host, port in servers],
        sentinel_kwargs={
            **tls,
            "socket_timeout": options["socket_timeout"],
            "socket_connect_timeout": options["socket_connect_timeout"],
            "username": login.sentinel_username or None,
            "password": login.sentinel_password or None,
        },
    )
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    query = dict(parse_qsl(parts.query))
    if "protocol" in query:
        options["protocol"] = int(query["protocol"])
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        path[0], sentinel, db=int(path[1]) if path[1:] else 0, **options
    )
