"""The two clients: `onebar.client.calls`, run by httpx. HTTP/1.1, connections are kept alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx

from onebar.client import calls
from onebar.client.calls import Attempt, Call, Lookup, Lost, Options, Pause, Policy, Reply
from onebar.client.errors import InvalidRequestError
from onebar.client.records import Answer

URL = "http://127.0.0.1:8080"
TIMEOUT_S = 5.0
T = TypeVar("T")

Events = Mapping[str, Any] | Iterable[Mapping[str, Any]] | object
"""One event or many: dicts as docs/events.md has them, or records of `stream.events`."""


class _Shared:
    """What both have in common: settings, and the calls."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidRequestError(f"expected http://HOST:PORT or https://…, got {url!r}")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._policy = Policy()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def _deadline(self, timeout_s: float | None) -> float:
        return self._policy.clock() + (self.timeout_s if timeout_s is None else timeout_s)

    def _look_up(
        self, video_id: str, user_id: str | None, timeout_s: float | None, options: Options
    ) -> Call[Answer]:
        return calls.look_up(
            video_id, user_id, options, deadline=self._deadline(timeout_s), policy=self._policy
        )

    def _look_up_many(
        self, lookups: Iterable[Lookup], timeout_s: float | None, options: Options
    ) -> Call[list[Answer]]:
        return calls.look_up_many(
            lookups, options, deadline=self._deadline(timeout_s), policy=self._policy
        )

    def _send(self, events: Events, timeout_s: float | None) -> Call[int]:
        return calls.send(events, deadline=self._deadline(timeout_s), policy=self._policy)


class Client(_Shared):
    """Looks queries up and sends events; blocks meanwhile. Any number of threads may share one.

    Every call ends within its `timeout_s`, tries included; a server that sends its answer byte by
    byte may exceed it by the wait for one of them. Errors are `ClientError`s. `transport` is
    httpx's, for connections of a special kind.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout_s)
        self._http = httpx.Client(
            base_url=self.url, headers=self._headers, transport=transport, timeout=timeout_s
        )

    def queries(
        self,
        video_id: str,
        user_id: str | None = None,
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """What to show under a video to this user, or to anyone. `options` are those of
        `onebar.client.calls.Options`: `k`, `budget_ms`, `exclude`, `languages`, `max_length`,
        `diversity`, `constrain`."""
        return self._run(self._look_up(video_id, user_id, timeout_s, options))

    def queries_many(
        self,
        lookups: Iterable[Lookup],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> list[Answer]:
        """The same for many: video ids or (video id, user id) pairs. Answers come in their order;
        `timeout_s` is for all, `budget_ms` for each 256 of them."""
        return self._run(self._look_up_many(lookups, timeout_s, options))

    def send(self, events: Events, *, timeout_s: float | None = None) -> int:
        """Send one event or many; how many, once Kafka has them all. Those without an `event_id`
        or a `ts` get one. Raises `InvalidEventsError`, which names each that is wrong."""
        return self._run(self._send(events, timeout_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        outcome: Reply | Lost | None = None
        try:
            while True:
                step = call.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    outcome = self._attempt(step)
        except StopIteration as done:
            value: T = done.value
            return value

    def _attempt(self, attempt: Attempt) -> Reply | Lost:
        request, ends = attempt.request, time.monotonic() + attempt.timeout_s
        try:
            with self._http.stream(
                request.method,
                request.path,
                params=request.params,
                content=request.content,
                headers=_JSON if request.content is not None else None,
                timeout=attempt.timeout_s,
            ) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > ends:
                        return Lost(TimeoutError("the answer was cut off"), late=True)
                return _reply(response, bytes(body))
        except httpx.TimeoutException as error:
            return Lost(error, late=True)
        except httpx.HTTPError as error:
            return Lost(error)


class AsyncClient(_Shared):
    """`Client` for asyncio: the same calls to await, the same errors. For one event loop."""

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout_s)
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=self._headers, transport=transport, timeout=timeout_s
        )

    async def queries(
        self,
        video_id: str,
        user_id: str | None = None,
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """As `Client.queries`."""
        return await self._run(self._look_up(video_id, user_id, timeout_s, options))

    async def queries_many(
        self,
        lookups: Iterable[Lookup],
        *,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> list[Answer]:
        """As `Client.queries_many`."""
        return await self._run(self._look_up_many(lookups, timeout_s, options))

    async def send(self, events: Events, *, timeout_s: float | None = None) -> int:
        """As `Client.send`."""
        return await self._run(self._send(events, timeout_s))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, call: Call[T]) -> T:
        outcome: Reply | Lost | None = None
        try:
            while True:
                step = call.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    outcome = await self._attempt(step)
        except StopIteration as done:
            value: T = done.value
            return value

    async def _attempt(self, attempt: Attempt) -> Reply | Lost:
        request = attempt.request
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.request(
                    request.method,
                    request.path,
                    params=request.params,
                    content=request.content,
                    headers=_JSON if request.content is not None else None,
                    timeout=None,
                )
                return _reply(response, response.content)
        except (TimeoutError, httpx.TimeoutException) as error:
            return Lost(error, late=True)
        except httpx.HTTPError as error:
            return Lost(error)


_JSON = {"Content-Type": "application/json"}


def _reply(response: httpx.Response, body: bytes) -> Reply:
    return Reply(response.status_code, body, response.headers.get("Retry-After"))
