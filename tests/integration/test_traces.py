"""One trace of one impression, by a collector: through the API, Kafka, the stream worker and the
generator to the record on the topic of queries, and of a lookup through cache and generation."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import Workers, eventually

from onebar.settings import Settings
from onebar.stack.servers import free_port
from stream.events import QUERIES
from stream.kafka.consumer import RecordConsumer
from stream.kafka.records import Record

pytestmark = pytest.mark.integration

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = "send to Kafka"
LOOKUP = "0af7651916cd43dd8448eb211c80319c"


class Told(Struct, frozen=True):
    """A span as the collector got it."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    attributes: dict[str, str]


@contextmanager
def collector() -> Iterator[tuple[str, list[Told]]]:
    """An OTLP/HTTP collector: its address, and the spans that came."""
    told: list[Told] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    told.extend(
                        Told(
                            named["service.name"],
                            each.trace_id.hex(),
                            each.span_id.hex(),
                            each.parent_span_id.hex(),
                            each.name,
                            {one.key: one.value.string_value for one in each.attributes},
                        )
                        for each in scope.spans
                    )
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of(told: list[Told], trace: str) -> dict[tuple[str, str], Told]:
    return {(one.service, one.name): one for one in told if one.trace == trace}


async def query_records(settings: Settings) -> list[Record]:
    consumer = RecordConsumer(settings, [QUERIES], group=None, max_records=100, alone=True)
    await consumer.start()
    try:
        return await eventually(lambda: consumer.fetch(0.5), what="a record of queries")
    finally:
        await consumer.stop()


async def test_one_impression_is_followed_through_all_processes(
    settings: Settings, made_topics: None, workers: Workers
) -> None:
    ports = [free_port() for _ in range(3)]
    made = settings.model_copy(update={"api_port": ports[0]})
    with collector() as (endpoint, told):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        parts = [
            (name, made.model_copy(update={"metrics_port": port}))
            for name, port in zip(("api", "stream", "generator"), (0, *ports[1:]), strict=True)
        ]
        started = [workers.start(name, settings=each, **environment) for name, each in parts]
        for child, (_, each) in zip(started, parts, strict=True):
            await workers.ready(child, each, 90)
        now = time.time()
        events = [
            {"type": "video", "event_id": "e1", "ts": now, "video_id": "v", "title": "red shoes"},
            {"type": "impression", "event_id": "e2", "ts": now, "video_id": "v"},
        ]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", timeout=20) as http:
            parent = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            taken = await http.post("/v1/events", json=events, headers=parent)
            assert taken.status_code == 202
            [record] = await query_records(made)

            wanted = {
                ("onebar-api", "POST /v1/events"),
                ("onebar-api", SENT),
                ("onebar-stream", "process onebar.videos"),
                ("onebar-stream", "apply"),
                ("onebar-generator", "process onebar.impressions"),
                *(("onebar-generator", name) for name in ("evidence", "generate", "cache write")),
                ("onebar-generator", SENT),
            }
            carried = dict(record.headers)["traceparent"].decode().split("-")
            assert carried[1] == TRACE

            def processed() -> Told | None:
                """The attempt that made them: before it the video may not have been known yet."""
                return next((one for one in told if one.id == carried[2]), None)

            process = await eventually(processed, what="the impression's span")
            assert (process.service, process.trace) == ("onebar-generator", TRACE)
            assert process.name == "process onebar.impressions"
            await eventually(lambda: wanted <= of(told, TRACE).keys(), what="all spans")
            found = of(told, TRACE)
            request, sent = found["onebar-api", "POST /v1/events"], found["onebar-api", SENT]
            assert request.parent == SPAN
            assert sent.parent == request.id
            assert taken.headers["traceparent"] == f"00-{TRACE}-{request.id}-01"
            assert process.parent == sent.id
            assert found["onebar-stream", "process onebar.videos"].parent == sent.id
            under = {one.name for one in told if one.parent == process.id}
            assert under == {"evidence", "generate", "cache write", SENT}

            # Another user: from the cache that everyone shares, or made anew.
            asked = {"traceparent": f"00-{LOOKUP}-{SPAN}-01"}
            answer = await http.get(
                "/v1/queries?video_id=v&user_id=u&budget_ms=2000", headers=asked
            )
            served = await eventually(
                lambda: of(told, LOOKUP).get(("onebar-api", "GET /v1/queries")), what="the lookup"
            )
            assert served.parent == SPAN
            assert served.attributes["onebar.source"] == answer.json()["source"] == "generated"
            for name in ("cache lookup", "evidence", "cache write"):
                assert of(told, LOOKUP)["onebar-api", name].parent == served.id
            unsampled = {"traceparent": f"00-{'1' * 32}-{SPAN}-00"}
            await http.get("/v1/queries?video_id=v", headers=unsampled)
            await http.get("/healthz", headers=asked)
        for child in started:
            assert workers.stop(child) == 0
        assert of(told, "1" * 32) == {}
        assert "GET /healthz" not in {one.name for one in told}
