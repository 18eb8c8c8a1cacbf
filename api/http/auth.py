"""API keys: who may do what. Off only where nobody but this machine can connect."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from msgspec import Struct

from api.http.problems import ProblemError
from onebar.errors import UsageError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_HASH = re.compile(r"[0-9a-f]{64}")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="onebar"'}


class ApiKeyError(UsageError, ValueError):
    """`ONEBAR_API_KEYS` says something that is no list of keys."""


class UnsafeBindError(UsageError, RuntimeError):
    """Without API keys the server would answer to everyone who reaches this host."""


class ApiKey(Struct, frozen=True):
    """What is known of a key: its SHA-256, and what it allows."""

    digest: bytes
    scopes: frozenset[str]

    @property
    def name(self) -> str:
        """What may stand in logs and metrics: the first 8 digits of the hash."""
        return self.digest.hex()[:8]


ANONYMOUS = ApiKey(b"", frozenset(SCOPES))
"""Who everyone is where keys are off."""


def parse_api_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    """The keys in `scope[+scope]:sha256hex` entries. Raises `ApiKeyError` naming the entry.

    A scope allows what it names and nothing else: an admin key that reads is `read+admin`.
    """
    keys: dict[bytes, ApiKey] = {}
    for number, entry in enumerate(entries, 1):
        named, separator, digest = entry.strip().rpartition(":")
        where = f"entry {number} of ONEBAR_API_KEYS"
        if not separator:
            raise ApiKeyError(
                f"{where} is no scope[+scope]:sha256hex pair; "
                "make one with: printf %s KEY | sha256sum"
            )
        scopes = frozenset(scope.strip() for scope in named.split("+"))
        if scopes - set(SCOPES):  # not repeated: it may be a key
            raise ApiKeyError(
                f"{where} has a scope that is none; expected {', '.join(SCOPES)}, several joined "
                "by +, before the colon"
            )
        digest = digest.strip().lower()
        if not _HASH.fullmatch(digest):
            raise ApiKeyError(
                f"{where} has {len(digest)} characters behind the colon; expected the 64 hex "
                "digits of the key's SHA-256 (never the key itself): printf %s KEY | sha256sum"
            )
        raw = bytes.fromhex(digest)
        if raw in keys:
            raise ApiKeyError(f"{where} repeats an earlier key: name all its scopes in one entry")
        keys[raw] = ApiKey(raw, scopes)
    return tuple(keys.values())


class KeyRing:
    """The keys that are accepted. Empty: everyone may do everything."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: bytes | None) -> ApiKey | None:
        """The key presented, in the same time whichever it is; None for a wrong or missing one."""
        if presented is None:
            return None
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key in `Authorization: Bearer KEY` or `X-API-Key: KEY`, the first of them."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name == b"x-api-key" and value.strip():
            return value.strip()
    return None


def unauthorized(presented: bool) -> ProblemError:
    """401: no key, or a wrong one."""
    detail = (
        "This API key is not known."
        if presented
        else "An API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY."
    )
    return ProblemError(401, "unauthorized", detail, headers=_CHALLENGE)


def forbidden(scope: Scope, key: ApiKey) -> ProblemError:
    """403: a good key that does not allow this."""
    has = ", ".join(sorted(key.scopes))
    return ProblemError(403, "forbidden", f"This needs the scope {scope}; the key has {has}.")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, keys: KeyRing) -> None:
    """Raise `UnsafeBindError` for an address beyond loopback without keys."""
    if not keys and not is_loopback(host):
        raise UnsafeBindError(
            f"ONEBAR_API_HOST is {host!r}, which others can reach, and ONEBAR_API_KEYS is empty: "
            "set keys (scope[+scope]:sha256hex), or listen on 127.0.0.1"
        )
