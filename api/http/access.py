"""Who may pass: keys, scopes, rate limits and, where keys are off, the name we are called by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from api.http.auth import (
    ANONYMOUS,
    ApiKey,
    KeyRing,
    Scope,
    forbidden,
    is_loopback,
    presented_key,
    unauthorized,
)
from api.http.metrics import RATE_LIMITED
from api.http.problems import ProblemError
from api.http.proxies import Proxies
from api.http.rate_limits import RateLimiter

NO_PROXIES = Proxies()


class AccessControl:
    """Admits requests. Its checks take microseconds and wait for nothing."""

    def __init__(self, keys: KeyRing, limiter: RateLimiter, proxies: Proxies = NO_PROXIES) -> None:
        self.keys = keys
        self.limiter = limiter
        self.proxies = proxies

    def admit(self, scope: Any, needed: Scope, *, counted: bool = True) -> ApiKey:
        """The caller's key, if it allows `needed`; `scope` is the ASGI scope. Not `counted`: the
        request was admitted for something else already.

        Raises `ProblemError`: 401, 403, 421 or 429.
        """
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        if not self.keys:
            self._check_host(headers)
            self._check_origin(scope)
            if counted:
                self._limit(self.proxies.caller(scope))
            return ANONYMOUS
        presented = presented_key(headers)
        key = self.keys.find(presented)
        if key is None:
            self._limit(self.proxies.caller(scope))
            raise unauthorized(presented is not None)
        if counted:
            self._limit(key.name)
        if needed not in key.scopes:
            raise forbidden(needed, key)
        return key

    def _limit(self, caller: str) -> None:
        wait_s = self.limiter.take(caller)
        if wait_s:
            RATE_LIMITED.inc()
            raise ProblemError(
                429,
                "rate-limited",
                f"More than {self.limiter.per_s:g} requests a second; "
                f"the next one may come in {wait_s:.3f} s.",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    def _check_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Without keys, only this machine's own names: a web page elsewhere can make a browser
        here call 127.0.0.1 under a name of its own (DNS rebinding), but can't hide that name.
        """
        for name, value in headers:
            if name == b"host":
                if value and not _is_ours(value):
                    raise ProblemError(
                        421,
                        "misdirected",
                        f"Without ONEBAR_API_KEYS only localhost is served, not {value[:100]!r}.",
                    )
                return

    def _check_origin(self, scope: Any) -> None:
        """Nor what a proxy on this machine passes on: it comes from loopback, whoever sent it."""
        if self.proxies.leads_beyond(scope):
            raise ProblemError(
                421,
                "misdirected",
                "Without ONEBAR_API_KEYS only this machine is served, and this came through a "
                "proxy. Set keys; or name the proxy in ONEBAR_TRUSTED_PROXIES, where it passes on "
                "nobody but this machine.",
            )


@lru_cache(maxsize=256)
def _is_ours(host: bytes) -> bool:
    """Whether a Host header names this machine's loopback: a few values come again and again."""
    return is_loopback(host_name(host.decode("latin-1")))


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]
