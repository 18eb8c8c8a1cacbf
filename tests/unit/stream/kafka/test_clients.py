from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from serving import serving

from onebar.settings import Settings
from stream.kafka.clients import start_client, stop_client
from stream.kafka.consumer import RecordConsumer, end_offsets
from stream.kafka.lag import group_lags
from stream.kafka.producer import EventProducer
from stream.kafka.topics import KafkaUnavailableError, partition_counts

API_VERSIONS = 18
KNOWN = ((0, 0, 2), (1, 0, 4), (2, 0, 1), (3, 0, 1), (10, 0, 1), (API_VERSIONS, 0, 0))


@asynccontextmanager
async def silent_broker() -> AsyncIterator[tuple[Settings, asyncio.Event]]:
    """Says which requests it knows, and answers none; when the first of these has come."""
    asked = asyncio.Event()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            key, _, number = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
            if key != API_VERSIONS:
                asked.set()
                continue
            body = struct.pack(">ihi", number, 0, len(KNOWN))
            body += b"".join(struct.pack(">hhh", *each) for each in KNOWN)
            writer.write(struct.pack(">i", len(body)) + body)

    async with serving(visit) as port:
        yield Settings(kafka_bootstrap=f"127.0.0.1:{port}", idempotent_producer=False), asked


def connections() -> list[AIOKafkaConnection]:
    gc.collect()
    found = (each for each in gc.get_objects() if isinstance(each, AIOKafkaConnection))
    return [each for each in found if each.connected()]


CLIENTS: dict[str, Callable[[Settings], Coroutine[Any, Any, Any]]] = {
    "administered": partition_counts,
    "group_lags": lambda settings: group_lags(settings, "g", ["onebar.behaviors"]),
    "reader": lambda settings: end_offsets(settings, [("onebar.behaviors", 0)]),
    "consumer": lambda settings: RecordConsumer(
        settings, ["onebar.behaviors"], group="g", max_records=1
    ).start(),
    "producer": lambda settings: EventProducer(settings).start(),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_is_cancelled_before_the_first_answer_leaves_nothing_open(name: str) -> None:
    async def run() -> list[str]:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context["message"])
        )
        async with silent_broker() as (settings, asked):
            task = asyncio.create_task(CLIENTS[name](settings))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            assert connections() == []
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the broker's, which hears of it
                await asyncio.sleep(0.001)
        return complaints

    assert asyncio.run(run()) == []


class Stub:
    """A client that notes what becomes of it; its stop takes until `go`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.go = asyncio.Event()
        self.stopping = asyncio.Event()
        self.stopped = False

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.stopping.set()
        await self.go.wait()
        self.stopped = True


def test_one_who_is_cancelled_while_a_client_stops_does_not_keep_it_from_stopping() -> None:
    async def run() -> None:
        client = Stub()
        task = asyncio.create_task(stop_client(client))
        await client.stopping.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        client.go.set()
        while not client.stopped:  # noqa: ASYNC110 - nothing else is told of it
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_client_that_does_not_stop_is_given_up() -> None:
    async def run() -> None:
        client = Stub()
        await stop_client(client, within_s=0.01)
        assert not client.stopped

    asyncio.run(run())


def test_a_client_that_does_not_start_is_stopped() -> None:
    async def run() -> None:
        client = Stub(OSError("no"))
        client.go.set()
        with pytest.raises(OSError, match="no"):
            await start_client(client)
        assert client.stopped

    asyncio.run(run())


def test_a_consumer_whose_partitions_are_not_told_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        stub = Stub()
        stub.go.set()

        async def away(settings: Settings) -> dict[str, int]:
            raise KafkaUnavailableError(settings.kafka_bootstrap, "gone")

        monkeypatch.setattr("stream.kafka.consumer.AIOKafkaConsumer", lambda **options: stub)
        monkeypatch.setattr("stream.kafka.consumer.partition_counts", away)
        consumer = RecordConsumer(Settings(), ["t"], group=None, max_records=1, alone=True)
        with pytest.raises(KafkaUnavailableError):
            await consumer.start()
        assert stub.stopped

    asyncio.run(run())
