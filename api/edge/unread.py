"""A connection whose request was answered before its body was read is of no use to the next one."""

from __future__ import annotations

from typing import Any

from api.edge.compress import Header

CLOSE: Header = (b"connection", b"close")


class Body:
    """`receive` of one request. Where it is answered before the whole body is there, the server
    closes the connection, and the answer has to say so: who sent the next request on it at just
    that moment would get none (RFC 9112, section 9.6)."""

    def __init__(self, scope: Any, receive: Any) -> None:
        self._receive = receive
        self._may_close = scope.get("http_version", "1.1") in ("1.0", "1.1")
        self._unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

    async def __call__(self) -> Any:
        message = await self._receive()
        if not message.get("more_body"):
            self._unread = False
        return message

    def headers(self) -> tuple[Header, ...]:
        """What an answer that is sent now has to say."""
        return (CLOSE,) if self._unread and self._may_close else ()
