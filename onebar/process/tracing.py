"""Traces, where the operator wants them: what one request or event caused, through all processes.
The only importer of OpenTelemetry, and only once it is wanted.

Off unless one of OpenTelemetry's own variables says where traces go (`wanted`); then every call
here returns at once. The library reads the rest of them itself: sampling, batches, resource.

What is done for several at once (a batch of impressions) is told in the trace of each of them:
the current spans are a tuple, and a span that begins under them has one child for each.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from onebar.errors import UsageError
from onebar.process.extras import how_to_install

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Headers = tuple[tuple[str, bytes], ...]
"""Of a Kafka record."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
STOP_WITHIN_S = 2.0
_CARRIED = ("traceparent", "tracestate")
_MOST = 512
"""Bytes of one header that are looked at."""
_NOTHING = nullcontext()


class TracingError(UsageError, ValueError):
    """Traces are wanted in a way that can't be had."""


class _Tracing:
    """What is there once traces are wanted."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation import tracecontext

        self.provider = provider
        self.trace = trace
        self.tracer: Tracer = provider.get_tracer("onebar")
        self.propagator: TraceContextTextMapPropagator = (
            tracecontext.TraceContextTextMapPropagator()
        )

    def joined(self, carried: Mapping[str, str]) -> Context:
        """The context that headers carry; an empty one where they carry none."""
        from opentelemetry.context import Context

        return self.propagator.extract(carried, Context())

    def carrier(self, span: Span) -> dict[str, str]:
        carried: dict[str, str] = {}
        self.propagator.inject(carried, self.trace.set_span_in_context(span))
        return carried


_on: _Tracing | None = None
_spans: ContextVar[tuple[Span, ...]] = ContextVar("onebar_spans", default=())
_consumed: ContextVar[Mapping[Hashable, Span] | None] = ContextVar("onebar_consumed", default=None)


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether these variables ask for traces: `OTEL_TRACES_EXPORTER` is `otlp` or `console`, or an
    endpoint for them is named; and `OTEL_SDK_DISABLED` is not `true`. Raises `TracingError` for an
    exporter that there is none of."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "none", "otlp", "console"):
        raise TracingError(
            f"OTEL_TRACES_EXPORTER is {exporter!r:.100}; expected otlp, console or none"
        )
    if exporter:
        return exporter != "none"
    return any(environment.get(name, "").strip() for name in ENDPOINTS)


def start_tracing(service: str, exporter: SpanExporter | None = None) -> bool:
    """Trace from now on, where the environment wants it or there is an `exporter`; whether it does.
    `service` is what this process is called unless `OTEL_SERVICE_NAME` says something else.

    Raises `TracingError` where the library is not installed, or can't do what is asked for.
    """
    global _on
    if _on is not None:
        return True
    if exporter is None and not wanted(os.environ):
        return False
    batched = exporter is None
    exporter = exporter or _exporter()
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    processor = BatchSpanProcessor(exporter) if batched else SimpleSpanProcessor(exporter)
    named = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    if name := os.environ.get("OTEL_SERVICE_NAME", "").strip():
        named = named.merge(Resource({SERVICE_NAME: name}))
    provider = TracerProvider(resource=Resource.create().merge(named), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    _on = _Tracing(provider)
    return True


def check_tracing() -> None:
    """Raises `TracingError` as `start_tracing` would, and starts nothing."""
    if wanted(os.environ):
        _exporter().shutdown()


def _exporter() -> SpanExporter:
    try:
        return _wanted_exporter()
    except ImportError as error:
        raise TracingError(
            f"traces are wanted, and {error.name} is not installed: {how_to_install('otel')}; or "
            "unset OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error


def _wanted_exporter() -> SpanExporter:
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol.strip() not in ("", "http/protobuf"):
        raise TracingError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r:.100}; only http/protobuf is spoken"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def stop_tracing() -> None:
    """Send what is left, and trace no more. A collector that does not answer is not waited for
    longer than `STOP_WITHIN_S`."""
    global _on
    if _on is not None:
        on, _on = _on, None
        ending = threading.Thread(target=on.provider.shutdown, daemon=True)
        ending.start()
        ending.join(STOP_WITHIN_S)


def tracing() -> bool:
    """Whether traces are made."""
    return _on is not None


def span(name: str, **attributes: Any) -> AbstractContextManager[None]:
    """A part of what is being traced, for as long as the block runs; nothing where nothing is."""
    parents = _spans.get()
    return _children(parents, name, attributes) if parents else _NOTHING


@contextmanager
def _children(
    parents: tuple[Span, ...], name: str, attributes: Mapping[str, Any]
) -> Iterator[None]:
    on = _on
    if on is None:
        yield
        return
    spans = tuple(
        on.tracer.start_span(
            name, on.trace.set_span_in_context(parent), attributes=_told(attributes)
        )
        for parent in parents
    )
    with _current(spans):
        yield


@contextmanager
def _current(spans: tuple[Span, ...]) -> Iterator[None]:
    """These are the spans of the block, and end with it; an error in it is noted in them, by its
    name alone: what it says may hold what users typed."""
    mark = _spans.set(spans)
    try:
        yield
    except Exception as error:
        for each in spans:
            fail(each, type(error).__name__)
        raise
    finally:
        _spans.reset(mark)
        for each in spans:
            each.end()


def fail(one: Span, why: str) -> None:
    """Mark a span as failed."""
    from opentelemetry.trace import Status, StatusCode

    one.set_status(Status(StatusCode.ERROR, why))
    one.set_attribute("error.type", why)


def note(**attributes: Any) -> None:
    """Say something of the spans that are current."""
    for each in _spans.get():
        each.set_attributes(_told(attributes))


def _told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"onebar.{name}": value for name, value in attributes.items() if value is not None}


@contextmanager
def serving(method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Served]:
    """The span of an HTTP request, in the caller's trace where its headers name one, else the first
    of a new one. Only while `tracing()`."""
    on = _on
    assert on is not None
    carried: dict[str, str] = {}
    for key, value in headers:
        header = key.decode("latin-1")
        if header in _CARRIED:
            # Said twice, neither is believed.
            carried[header] = "" if header in carried else value[:_MOST].decode("latin-1")
    kind = on.trace.SpanKind.SERVER
    one = on.tracer.start_span(method, on.joined(carried), kind=kind)
    one.set_attribute("http.request.method", method)
    with _current((one,)):
        yield Served(one, on.carrier(one)["traceparent"].encode())


class Served:
    """The span of an HTTP request; `traceparent` is what the answer says of it."""

    def __init__(self, one: Span, traceparent: bytes) -> None:
        self._span = one
        self.traceparent = traceparent

    def answered(self, name: str, route: str, status: int, **attributes: Any) -> None:
        """What became of it, and its name, which is known only when it was routed. Its path is told
        nowhere: it may have a user's id in it."""
        self._span.update_name(name)
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attributes(_told(attributes))
        if status >= 500:
            fail(self._span, str(status))


def consuming(records: Iterable[tuple[Hashable, str, Headers]]) -> AbstractContextManager[None]:
    """The spans of Kafka records that are handled together: (key, topic, headers) of each, the key
    for `carried`. Those that carry no trace have none: nobody asks for the trace of every event."""
    return _NOTHING if _on is None else _consuming(_on, records)


@contextmanager
def _consuming(on: _Tracing, records: Iterable[tuple[Hashable, str, Headers]]) -> Iterator[None]:
    spans: dict[Hashable, Span] = {}
    for key, topic, headers in records:
        carried = {
            name: value[:_MOST].decode("latin-1")
            for name, value in headers
            if name in _CARRIED and value is not None
        }
        parent = on.joined(carried) if "traceparent" in carried else None
        if parent is None or not on.trace.get_current_span(parent).get_span_context().is_valid:
            continue
        spans[key] = on.tracer.start_span(
            f"process {topic}", parent, kind=on.trace.SpanKind.CONSUMER
        )
        spans[key].set_attributes(
            {"messaging.system": "kafka", "messaging.destination.name": topic}
        )
    if not spans:
        yield
        return
    mark = _consumed.set(spans)
    try:
        with _current(tuple(spans.values())):
            yield
    finally:
        _consumed.reset(mark)


def carried(key: Hashable = None) -> Headers:
    """What a Kafka record says of the trace that it comes of: that of the record `key` where one is
    named, else that of the first current span. Empty where nothing is traced."""
    on = _on
    if on is None:
        return ()
    one = next(iter(_spans.get()), None) if key is None else (_consumed.get() or {}).get(key)
    if one is None:
        return ()
    return tuple((name, value.encode()) for name, value in on.carrier(one).items())
