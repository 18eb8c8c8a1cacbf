"""How much a process takes in at once: requests being answered, and the bytes of their bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from api.http.metrics import BODY_BYTES, IN_FLIGHT, SHED
from api.http.problems import UnavailableError


class Room:
    """Counts what is being answered, and refuses what there is no room for: 503, come again."""

    def __init__(self, *, requests: int, body_bytes: int) -> None:
        self._most_requests = requests
        self._most_bytes = body_bytes
        self.requests = 0
        self.body_bytes = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Room for one request, up to the end of the block. Raises `UnavailableError`."""
        if self.requests >= self._most_requests:
            SHED.labels("requests").inc()
            raise UnavailableError(
                "overloaded",
                f"{self.requests} requests are being answered here, as many as there is room for.",
            )
        self.requests += 1
        IN_FLIGHT.set(self.requests)
        try:
            yield
        finally:
            self.requests -= 1
            IN_FLIGHT.set(self.requests)

    def take(self, size: int) -> None:
        """Room for so many bytes of a body more, until they are given back. Raises
        `UnavailableError`."""
        if self.body_bytes + size > self._most_bytes:
            SHED.labels("body_bytes").inc()
            raise UnavailableError(
                "overloaded",
                f"The bodies being read here have {self.body_bytes:,} bytes; there is no room for "
                f"{size:,} more.",
            )
        self.body_bytes += size
        BODY_BYTES.set(self.body_bytes)

    def give_back(self, size: int) -> None:
        """These bytes are held no more."""
        self.body_bytes -= size
        BODY_BYTES.set(self.body_bytes)
