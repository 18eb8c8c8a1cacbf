"""A keyed hash in the place of a user's id, wherever an event comes in or a user is asked for.

HMAC (RFC 2104) with SHA-256, cut to 128 bits: without the key nobody can tell whose a pseudonym is,
nor try ids until one fits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TypeVar

import msgspec

from stream.events.types import Event

BYTES = 16
MARK = "~"
_PSEUDONYM = re.compile(r"~[A-Za-z0-9_-]{22}")

E = TypeVar("E", bound=Event)


class Pseudonyms:
    """Those of one key; without a key everyone keeps their id.

    A pseudonym is `~` and 22 characters of base64url (RFC 4648). That of a pseudonym is itself, so
    that an event may pass several doors, and come again.
    """

    def __init__(self, key: str = "") -> None:
        self._hash = hmac.new(key.encode(), digestmod=hashlib.sha256) if key else None

    def __bool__(self) -> bool:
        return self._hash is not None

    def of(self, user_id: str) -> str:
        """The pseudonym of a user."""
        if self._hash is None or _PSEUDONYM.fullmatch(user_id):
            return user_id
        keyed = self._hash.copy()
        keyed.update(user_id.encode("utf-8", "surrogatepass"))
        return MARK + base64.urlsafe_b64encode(keyed.digest()[:BYTES]).decode().rstrip("=")

    def event(self, event: E) -> E:
        """The same event by its user's pseudonym."""
        user_id = getattr(event, "user_id", None)
        if self._hash is None or not isinstance(user_id, str):
            return event
        return msgspec.structs.replace(event, user_id=self.of(user_id))


NONE = Pseudonyms()
"""Without a key."""
