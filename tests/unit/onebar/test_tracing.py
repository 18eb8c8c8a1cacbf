"""Traces: off unless wanted, one a request or event, through HTTP and Kafka headers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from onebar.process import tracing
from onebar.process.tracing import (
    Headers,
    TracingError,
    carried,
    check_tracing,
    consuming,
    note,
    serving,
    span,
    start_tracing,
    stop_tracing,
    wanted,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    assert start_tracing("onebar-test", exporter)
    yield exporter
    stop_tracing()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = {one.name: one for one in exporter.get_finished_spans()}
    assert len(found) == len(exporter.get_finished_spans())
    return found


def parent_of(one: ReadableSpan) -> int | None:
    return None if one.parent is None else one.parent.span_id


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_what_turns_traces_on(environment: dict[str, str], on: bool) -> None:
    assert wanted(environment) is on


def test_an_exporter_that_is_none_is_named() -> None:
    with pytest.raises(TracingError, match="zipkin"):
        wanted({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    for begin in (lambda: start_tracing("onebar-test"), check_tracing):
        with pytest.raises(TracingError, match=r"not installed: pip install .*otel"):
            begin()
    assert not tracing.tracing()


def test_a_protocol_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(TracingError, match="http/protobuf"):
        start_tracing("onebar-test")


def test_off_it_loads_nothing_and_does_nothing() -> None:
    code = (
        "import sys, onebar.process.tracing as t\n"
        "assert not t.start_tracing('x')\n"
        "with t.span('a'), t.consuming([((), 'topic', (('traceparent', b'x'),))]): t.note(a=1)\n"
        "assert t.carried() == () == t.carried(())\n"
        "t.stop_tracing()\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.strip() == "[]"


def test_a_request_joins_the_callers_trace(exported: InMemorySpanExporter) -> None:
    headers = [(b"host", b"x"), (b"traceparent", PARENT), (b"tracestate", b"a=1")]
    with serving("GET", headers) as served:
        with span("evidence", pairs=2):
            note(source="cache", nothing=None)
        served.answered("GET /v1/queries", "/v1/queries", 503, source="cache")
    found = spans(exported)
    server, inner = found["GET /v1/queries"], found["evidence"]
    assert f"{server.context.trace_id:032x}" == TRACE
    assert parent_of(server) == int(SPAN, 16)
    assert parent_of(inner) == server.context.span_id
    assert dict(inner.attributes or {}) == {"onebar.pairs": 2, "onebar.source": "cache"}
    assert (server.attributes or {})["http.response.status_code"] == 503
    assert not server.status.is_ok
    told = f"00-{TRACE}-{server.context.span_id:016x}-01".encode()
    assert served.traceparent == told


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"nonsense")],
        [(b"traceparent", PARENT)] * 2,
        [(b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01")],
        [(b"traceparent", b"\xff" * 10_000)],
    ],
)
def test_a_hostile_trace_is_not_joined(
    exported: InMemorySpanExporter, headers: list[tuple[bytes, bytes]]
) -> None:
    with serving("GET", headers):
        pass
    [one] = exported.get_finished_spans()
    assert one.parent is None
    assert f"{one.context.trace_id:032x}" != TRACE


def test_what_the_caller_does_not_sample_is_not_told_and_carried_on_so(
    exported: InMemorySpanExporter,
) -> None:
    unsampled = PARENT[:-1] + b"0"
    with serving("GET", [(b"traceparent", unsampled)]), span("evidence"):
        [(name, value)] = carried()
    assert name == "traceparent"
    assert value.startswith(f"00-{TRACE}-".encode())
    assert value.endswith(b"-00")
    assert exported.get_finished_spans() == ()


def test_each_record_of_a_batch_is_told_in_its_own_trace(exported: InMemorySpanExporter) -> None:
    traces = [f"{n:032x}" for n in (1, 2)]
    records: list[tuple[int, str, Headers]] = [
        (n, "onebar.impressions", (("other", b"x"), ("traceparent", f"00-{t}-{SPAN}-01".encode())))
        for n, t in enumerate(traces)
    ]
    records.append((2, "onebar.impressions", ()))
    records.append((3, "onebar.impressions", (("traceparent", b"\xffnone"),)))
    with consuming(records), span("evidence"):
        onward = [dict(carried(key)) for key in range(4)]
    finished = exported.get_finished_spans()
    assert sorted(one.name for one in finished) == [
        *("evidence", "evidence", "process onebar.impressions", "process onebar.impressions")
    ]
    for n, trace in enumerate(traces):
        own = {one.name: one for one in finished if f"{one.context.trace_id:032x}" == trace}
        process, inner = own["process onebar.impressions"], own["evidence"]
        assert parent_of(process) == int(SPAN, 16)
        assert parent_of(inner) == process.context.span_id
        span_id = f"{process.context.span_id:016x}"
        assert onward[n] == {"traceparent": f"00-{trace}-{span_id}-01".encode()}
    assert onward[2:] == [{}, {}]


def test_an_error_is_noted_and_raised_and_the_span_ends(exported: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="inside"), serving("GET", []), span("evidence"):
        raise ValueError("inside")
    for one in exported.get_finished_spans():
        assert not one.status.is_ok
        assert (one.attributes or {})["error.type"] == "ValueError"
        assert "inside" not in one.to_json()


async def test_tasks_begun_in_a_span_are_under_it(exported: InMemorySpanExporter) -> None:
    async def work(name: str) -> None:
        with span(name):
            await asyncio.sleep(0)

    with serving("GET", []):
        tasks = [asyncio.create_task(work(name)) for name in ("a", "b")]
        await asyncio.gather(*tasks)
    found = spans(exported)
    assert {parent_of(found["a"]), parent_of(found["b"])} == {found["GET"].context.span_id}


def test_a_collector_that_says_nothing_does_not_keep_a_process() -> None:
    """Who connects is never answered: a process with a span to send ends all the same."""
    code = (
        "from onebar.process.tracing import *\n"
        "assert start_tracing('x')\n"
        "with serving('GET', []): pass\n"
        "stop_tracing(); print('ended')"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "300"},
            timeout=60,
        )
    assert (done.returncode, done.stdout.strip()) == (0, "ended")


def test_the_samplers_variable_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    exporter = InMemorySpanExporter()
    start_tracing("onebar-test", exporter)
    try:
        with serving("GET", []):
            pass
        with serving("GET", [(b"traceparent", PARENT)]):
            pass
    finally:
        stop_tracing()
    [one] = exporter.get_finished_spans()
    assert f"{one.context.trace_id:032x}" == TRACE


def test_what_this_process_is_called(
    monkeypatch: pytest.MonkeyPatch, exported: InMemorySpanExporter
) -> None:
    with serving("GET", []):
        pass
    [one] = exported.get_finished_spans()
    assert one.resource.attributes["service.name"] == "onebar-test"
    stop_tracing()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "feed")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    other = InMemorySpanExporter()
    start_tracing("onebar-test", other)
    with serving("GET", []):
        pass
    [one] = other.get_finished_spans()
    assert one.resource.attributes["service.name"] == "feed"
    assert one.resource.attributes["deployment.environment.name"] == "prod"
