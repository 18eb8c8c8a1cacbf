"""What one HTTP request is called: `X-Request-ID`, and the trace it is of (`traceparent`)."""

from __future__ import annotations

import random
import re
from binascii import hexlify
from collections.abc import Iterable
from typing import Any

from onebar.process.logging import SUBJECT

Header = tuple[bytes, bytes]
Headers = Iterable[Header]

_IDS = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_TRACES = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NAMES = frozenset((b"x-request-id", b"traceparent"))
_KEY = "onebar.call"
_MOST = 512
"""Bytes of a header that is looked at."""


class Call:
    """What one HTTP request is called in its answer, in the logs and in traces.

    `made` is a name of our own, 24 hexadecimal digits, new for each. `request_id` is the caller's
    `X-Request-ID` where it sent one that is fit to be repeated, else `made`. `trace_id` is that of
    the caller's `traceparent` (W3C Trace Context), `parent` the caller's span in it; where it sent
    one that is none, a trace begins here that nobody has decided to keep (`flags` are 00).
    """

    # Of the class, not of each: a lookup takes microseconds.
    traced = False
    trace_id = b""
    parent = b""
    flags = b"00"
    over = False

    def __init__(self, headers: Headers) -> None:
        given = parent = None
        for name, value in headers:
            if name in _NAMES:
                # Said twice, neither is believed.
                if name == b"traceparent":
                    parent = value if parent is None else b""
                else:
                    given = value if given is None else b""
        self.made = self.request_id = hexlify(random.randbytes(12))
        if given is not None and _IDS.fullmatch(given) is not None:
            self.request_id = given
        if parent is not None:
            self._join(parent)

    def _join(self, parent: bytes) -> None:
        self.traced, self.trace_id = True, b"00000000" + self.made
        found = _TRACES.fullmatch(parent[:_MOST])
        if found is not None:
            version, trace_id, parent_id, flags, more = found.groups()
            if (version != b"00" or not more) and trace_id.strip(b"0") and parent_id.strip(b"0"):
                self.trace_id, self.parent, self.flags = trace_id, parent_id, flags

    @property
    def name(self) -> str:
        """`request_id` as text."""
        return self.request_id.decode()

    def headers(self) -> tuple[Header, ...]:
        """What the answer says of it."""
        named = (b"x-request-id", self.request_id)
        if not self.traced:
            return (named,)
        parts = self.trace_id, self.made[8:], self.flags
        return (named, (b"traceparent", b"00-%b-%b-%b" % parts))

    def told(self) -> dict[str, str]:
        """What log lines that it causes say of it; nothing once it is answered: what it began may
        go on for others."""
        if self.over:
            return {}
        told = {"request_id": self.name}
        if self.traced:
            told["trace_id"] = self.trace_id.decode()
        return told


def begin(scope: Any) -> Call:
    """Name a request as it comes in."""
    call = Call(scope["headers"])
    scope[_KEY] = call
    SUBJECT.set(call)
    return call


def call_of(scope: Any) -> Call:
    """The names of a request; new ones where nobody has given it any."""
    found: Call | None = scope.get(_KEY)
    return begin(scope) if found is None else found
