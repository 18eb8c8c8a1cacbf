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
from api.http.rate_limits import RateLimiter, SharedLimiter

NO_PROXIES = Proxies()


class AccessControl:
    """Admits requests. Its checks take microseconds and wait for nothing."""

    def __init__(
        self, keys: KeyRing, limiter: SharedLimiter | None = None, proxies: Proxies = NO_PROXIES
    ) -> None:
        """Without a limiter everyone may ask as often as they like."""
        self.keys = keys
        self.limiter = limiter
        self.proxies = proxies
        self._strangers = RateLimiter(0.0 if limiter is None else limiter.per_s)

    def admit(self, scope: Any, needed: Scope) -> ApiKey:
        """The caller's key, if it allows `needed`; `scope` is the ASGI scope. How often it may ask
        is for `limit` to say, but that of strangers.

        Raises `ProblemError`: 401, 403, 421 or 429.
        """
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        if not self.keys:
            self._check_host(headers)
            self._check_origin(scope)
            return ANONYMOUS
        presented = presented_key(headers)
        key = self.keys.find(presented)
        if key is None:
            self._refuse(self._strangers.take(self.proxies.caller(scope)))
            raise unauthorized(presented is not None)
        if needed not in key.scopes:
            raise forbidden(needed, key)
        return key

    async def limit(self, scope: Any, key: ApiKey) -> None:
        """Count a request of the key, or of the address where there are no keys. Raises
        `ProblemError` (429) where it is one too many."""
        if self.limiter is not None:
            self._refuse(await self.limiter.take(self._caller(scope, key)))

    async def owe(self, scope: Any, key: ApiKey, count: int) -> None:
        """Count so many more, that came in one request."""
        if self.limiter is not None:
            await self.limiter.owe(self._caller(scope, key), count)

    def _caller(self, scope: Any, key: ApiKey) -> str:
        return self.proxies.caller(scope) if key is ANONYMOUS else key.name

    def _refuse(self, wait_s: float) -> None:
        if wait_s and self.limiter is not None:
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
                    named = value[:100].decode("latin-1")
                    raise ProblemError(
                        421,
                        "misdirected",
                        f"Without ONEBAR_API_KEYS only localhost is served, not {named!r}.",
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
