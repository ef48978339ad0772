"""Traces of a run for whoever collects them, over OTLP.

They are sent where ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) says where to, and the extra
``telemetry`` is installed; otherwise nothing is imported. Names of attributes are those of OpenTelemetry's
conventions for databases, ours begin with ``guvnor.``. A span holds no SQL and no message of an error: they
may quote rows.

A collector that does not answer delays nothing: spans are sent in the background, and at the end of a run for
two seconds more at most.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

_FLUSH = 2.0  # seconds
_WHERE = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVICE = "guvnor-migrations"

_tracer: Tracer | None = None  # while a run is traced


@contextlib.contextmanager
def exporting(version: str) -> Iterator[None]:
    """Send the spans that the body begins to the collector, if there is one.

    :param version: of this tool.
    """
    global _tracer
    if _tracer is not None or not any(map(os.environ.get, _WHERE)):
        yield
        return
    try:
        exporter = _Exporter()
        provider = _provider(exporter, version)
    except Exception as error:  # noqa: BLE001 - a wrong setting of OpenTelemetry's must not stop a migration
        missing = "the extra telemetry is not installed" if isinstance(error, ImportError) else str(error)
        log.warning(f"no traces are sent: {missing}")
        yield
        return
    _tracer = provider.get_tracer(_SERVICE, version)
    try:
        yield
    finally:
        _tracer = None
        _flush(provider, exporter)


@contextlib.contextmanager
def span(name: str, attributes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Make the body a span; a span within it becomes its child.

    :param attributes: by name; those that are None are left out.
    """
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    with _tracer.start_as_current_span(
        name,
        context=_deployment(),
        attributes=_present(attributes or {}),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR)
            current.set_attribute("error.type", type(error).__name__)
            cause = getattr(error, "orig", error)
            if code := getattr(cause, "pgcode", None):
                current.set_attribute("db.response.status_code", code)
            raise


def annotate(attributes: Mapping[str, Any]) -> None:
    """Add attributes to the current span; those that are None are left out."""
    if (current := _current()) is not None:
        current.set_attributes(_present(attributes))


def event(name: str, attributes: Mapping[str, Any]) -> None:
    """Record that something happened within the current span."""
    if (current := _current()) is not None:
        current.add_event(name, _present(attributes))


def _current() -> Span | None:
    if _tracer is None:
        return None
    from opentelemetry import trace

    return trace.get_current_span()


def _deployment() -> Any:
    """Return the context of the deployment that this run is a part of; None within the run itself.

    ``TRACEPARENT`` and ``TRACESTATE`` hold it (W3C Trace Context), as pipelines hand it on.
    """
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if trace.get_current_span().get_span_context().is_valid:
        return None
    names = ("traceparent", "tracestate")
    carrier = {name: value for name in names if (value := os.environ.get(name.upper()))}
    return TraceContextTextMapPropagator().extract(carrier)


def _present(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


class _Exporter:
    """OpenTelemetry's exporter over HTTP, which remembers whether the collector has taken all spans.

    :ivar failed: whether it has refused some, or could not be reached.
    """

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say it ourselves, and once
        self._exporter = OTLPSpanExporter(timeout=_FLUSH)
        self.failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send some spans."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        result = self._exporter.export(spans)
        self.failed |= result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Send nothing any more."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Keep nothing back."""
        return self._exporter.force_flush(timeout_millis)


def _provider(exporter: Any, version: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = os.environ.get("OTEL_SERVICE_NAME") or _SERVICE
    resource = Resource.create({"service.name": service, "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _flush(provider: TracerProvider, exporter: _Exporter) -> None:
    """Send what is left in a thread that does not keep the process alive."""
    thread = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    thread.start()
    thread.join(_FLUSH)
    if thread.is_alive() or exporter.failed:
        log.warning("the collector of traces did not take all of this run's")
