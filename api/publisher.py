"""Events on their way into Kafka: bounded waits, and a connection that mends itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from api.breaker import Breaker
from api.http.problems import ProblemError, UnavailableError
from onebar.process.tasks import end_tasks
from stream.events import Event

log = structlog.get_logger(__name__)

SEND_TIMEOUT_S = 5.0
"""Longest wait for Kafka to acknowledge a request's events."""
STALL_S = 2.0
CHECK_TIMEOUT_S = 1.0
RETRY_S = 1.0


class Producer(Protocol):
    """What `stream.kafka.producer.EventProducer` offers."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, events: Sequence[Event]) -> None: ...

    async def ping(self) -> None: ...


class Publisher:
    """Sends events, or says in time that it can't.

    Connects behind the API's back, and again until Kafka is there.
    """

    def __init__(
        self,
        make: Callable[[], Producer],
        *,
        send_timeout_s: float = SEND_TIMEOUT_S,
        retry_s: float = RETRY_S,
        stall_s: float = STALL_S,
    ) -> None:
        """After `stall_s` without an acknowledgement Kafka counts as away: what comes then is
        refused at once, and waits nowhere, until it answers again."""
        self._make = make
        self._send_timeout_s = send_timeout_s
        self._retry_s = retry_s
        self._producer: Producer | None = None
        self._breaker = Breaker(
            "kafka",
            probe=self._ping,
            away=_away,
            counts=_is_away,
            stall_s=stall_s,
        )
        self._task: asyncio.Task[None] | None = None
        self._reason = "connecting"

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._task = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        while self._producer is None:
            producer = self._make()
            try:
                await producer.start()
                self._producer = producer
                log.info("kafka_connected")
                return
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if reason != self._reason:
                    log.warning("kafka_unavailable", error=reason, retry_s=self._retry_s)
                self._reason = reason
                await _quietly(producer.stop())
            except asyncio.CancelledError:
                await _quietly(producer.stop())
                raise
            await asyncio.sleep(self._retry_s)

    async def send(self, events: Sequence[Event]) -> None:
        """Returns once Kafka has acknowledged all of them. Raises `UnavailableError` (503)
        within `send_timeout_s`; events may still arrive then, so they are to be sent again with
        the same event ids, which count once.
        """
        if self._producer is None:
            raise _unavailable(f"Kafka is not connected ({self._reason}); nothing was sent.")
        producer = self._producer
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._breaker.call(lambda: producer.send(events))
        except ProblemError:
            raise
        except TimeoutError:
            raise _unavailable(
                f"Kafka did not acknowledge within {self._send_timeout_s:g} s. Send the same "
                "events again, with the same event ids: what did arrive counts once."
            ) from None
        except ValueError as error:
            raise ProblemError(
                422, "events-refused", f"{error}. All others of the request have arrived."
            ) from error
        except Exception as error:
            log.warning("kafka_send_failed", error=repr(error), events=len(events))
            raise _unavailable(
                "Kafka refused the events or went away. Send the same events again, with the "
                "same event ids: what did arrive counts once."
            ) from error

    async def _ping(self) -> None:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            if self._producer is not None:
                await self._producer.ping()

    async def check(self) -> str:
        """`ok`, or why events can't be sent now. Takes a second at most."""
        if self._producer is None:
            return self._reason
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._producer.ping()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "ok"

    async def stop(self) -> None:
        """Close the connection; what is not acknowledged by then was not promised."""
        await self._breaker.stop()
        if self._task is not None:
            await end_tasks(self._task)
        if self._producer is not None:
            await _quietly(self._producer.stop())
            self._producer = None


async def _quietly(stopping: object) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await stopping  # type: ignore[misc]
    except Exception as error:
        log.debug("producer_stop_failed", error=repr(error))


def _is_away(error: Exception) -> bool:
    # A refusal is an answer.
    return not isinstance(error, ValueError)


def _away(why: str) -> Exception:
    return _unavailable(f"Kafka counts as away ({why}); nothing was sent.")


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError("kafka-unavailable", detail)
