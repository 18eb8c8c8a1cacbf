"""Addresses of Redis: what is one, and what may be shown of it."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlsplit

REDIS_SCHEMES = (
    *("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"),
    *("redis+sentinel", "rediss+sentinel"),
)
_NUMBERS = (
    *("db", "protocol", "timeout", "socket_timeout", "socket_connect_timeout"),
    *("socket_read_size", "max_connections", "health_check_interval"),
)
REDIS_OPTIONS = (
    *_NUMBERS,
    *("username", "password", "client_name", "socket_keepalive", "retry_on_timeout"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"),
    "ssl_check_hostname",
)
"""What may stand behind the ? of a URL."""


def split_redis_url(value: str) -> tuple[SplitResult, list[tuple[str, int | None]], list[str]]:
    """The parts of a URL of Redis, its servers (host, port) and what is between the slashes behind
    them. Raises `ValueError`, which repeats nothing of it."""
    try:
        parts = urlsplit(value)
        servers = []
        for each in parts.netloc.rpartition("@")[2].split(","):
            one = urlsplit(f"//{each.strip()}")
            servers.append((one.hostname or "", one.port))
    except ValueError:
        raise ValueError("expected a host, and a port from 1 to 65535 if any") from None
    return parts, servers, [part for part in parts.path.split("/") if part]


def check_redis_url(value: str) -> None:
    """Raises `ValueError` unless it is one; it repeats nothing of it."""
    scheme, separator, _ = value.partition("://")
    if not separator or scheme not in REDIS_SCHEMES:
        raise ValueError(f"expected a URL that begins with one of {', '.join(REDIS_SCHEMES)}")
    parts, servers, path = split_redis_url(value)
    if parts.fragment or "@" in parts.path:
        raise ValueError(
            "what is no letter or digit in a user or password is written as % and two digits: "
            "# is %23, / is %2F, @ is %40"
        )
    _check_options(parts.query)
    if scheme == "unix":
        if not path or (parts.netloc and not parts.netloc.endswith("@")):
            raise ValueError("expected a socket's path: unix:///run/redis.sock")
        return
    if any(not host or port == 0 for host, port in servers):
        raise ValueError("expected a host, and a port from 1 to 65535 if any")
    if scheme.endswith("+sentinel"):
        if not path or len(path) > 2 or not all(part.isdigit() for part in path[1:]):
            raise ValueError(
                "expected the primary's name behind the Sentinels, and the number of a database "
                "if any: redis+sentinel://host:26379,host2:26379/mymaster/0"
            )
        return
    if len(servers) > 1:
        raise ValueError("expected one host; several are Sentinels: redis+sentinel://")
    if len(path) > 1 or not all(part.isdigit() for part in path):
        raise ValueError("expected the number of a database after the host")


def _check_options(query: str) -> None:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(REDIS_OPTIONS):
        raise ValueError(f"expected behind the ? only {', '.join(REDIS_OPTIONS)}")
    for name in options.keys() & set(_NUMBERS):
        if not options[name].replace(".", "", 1).isdecimal():
            raise ValueError(f"expected a number as {name} behind the ?")


def shown_url(url: str) -> str:
    """A URL of Redis as it may be shown: without the user's name and password, and without its
    query, which may hold them too."""
    try:
        check_redis_url(url)
    except ValueError:
        return "(no URL of Redis)"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
