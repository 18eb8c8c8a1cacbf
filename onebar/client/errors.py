"""What can go wrong between a client and the API."""

from __future__ import annotations

from onebar.client.records import Fault, Problem
from onebar.errors import OneBarError


class ClientError(OneBarError):
    """A call that did not succeed. `status` and `problem` are the server's, where it answered."""

    def __init__(
        self, message: str, *, status: int | None = None, problem: Problem | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


class UnreachableError(ClientError, ConnectionError):
    """No connection, or one that broke, until the deadline. The last cause is chained."""


class ClientTimeoutError(ClientError, TimeoutError):
    """The deadline came before the answer."""


class BusyError(ClientError):
    """The server, or what it stands on, had no room until the deadline (429, 503).

    `retry_after_s` is what it asked to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problem: Problem | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, problem=problem)
        self.retry_after_s = retry_after_s


class NotAllowedError(ClientError, PermissionError):
    """The API key is missing, unknown, or lacks the scope (401, 403)."""


class InvalidRequestError(ClientError, ValueError):
    """The server can't make sense of what was asked; `faults` says what is wrong with what."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problem: Problem | None = None,
        faults: tuple[Fault, ...] = (),
    ) -> None:
        super().__init__(message, status=status, problem=problem)
        self.faults = faults


class InvalidEventsError(InvalidRequestError):
    """Some events can't be taken. Each fault has the event's `index` in what was sent.

    `accepted` events before them were: those of earlier requests, where there were too many
    events for one. Of the request with the faults none was.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problem: Problem | None = None,
        faults: tuple[Fault, ...] = (),
        accepted: int = 0,
    ) -> None:
        super().__init__(message, status=status, problem=problem, faults=faults)
        self.accepted = accepted
