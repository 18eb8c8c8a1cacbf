"""The events of a record from another topic go on in that record's trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import orjson
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from onebar.process.tracing import Headers, start_tracing, stop_tracing
from stream.events import Event
from stream.kafka.producer import EventProducer
from stream.kafka.records import Record
from stream.mapping.mapping import open_mapping
from stream.mapping.topic import NEEDS, TopicMapper
from stream.workers.metrics import WorkerHealth

SPAN = "00f067aa0ba902b7"


class Told:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[Event, Headers]] = []

    async def send(self, events: Sequence[Event], headers: Sequence[Headers] = ()) -> None:
        self.sent += zip(events, headers, strict=True)


def record(offset: int, trace: str | None) -> Record:
    data = {"video_id": f"v{offset}", "title": "red shoes"}
    value = {"id": f"e{offset}", "type": "video", "time": "2026-01-01T00:00:00Z", "data": data}
    parent = () if trace is None else (("traceparent", f"00-{trace}-{SPAN}-01".encode()),)
    return Record("feed", 0, offset, 1767225600.0, None, orjson.dumps(value), headers=parent)


@pytest.mark.parametrize("on", [True, False])
async def test_each_event_has_its_records_trace(on: bool) -> None:
    exporter = InMemorySpanExporter()
    if on:
        start_tracing("onebar-test", exporter)
    producer = Told()
    mapper = TopicMapper(
        open_mapping("cloudevents"), cast(EventProducer, producer), WorkerHealth(needs=NEEDS)
    )
    traces = ["1" * 32, None, "2" * 32]
    try:
        await mapper.take([record(offset, trace) for offset, trace in enumerate(traces)])
    finally:
        stop_tracing()
    videos = [cast(Any, event).video_id for event, _ in producer.sent]
    assert videos == ["v0", "v1", "v2"]
    carried = [dict(headers).get("traceparent", b"").decode() for _, headers in producer.sent]
    assert [each[3:35] for each in carried] == (["1" * 32, "", "2" * 32] if on else [""] * 3)
    assert len(exporter.get_finished_spans()) == (2 if on else 0)
