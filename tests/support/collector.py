"""A collector of traces: it takes them over OTLP, or misbehaves."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Span:
    """A span that was received."""

    name: str
    trace: str
    parent: str
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    began: int
    children: list[Span] = field(default_factory=list)

    def find(self, name: str) -> list[Span]:
        """Return the spans of a name below this one."""
        below = [found for child in self.children for found in child.find(name)]
        return [*([self] if self.name == name else []), *below]


class Collector:
    """Takes spans in a thread of its own.

    :ivar status: what it answers; None for no answer at all.
    :ivar url: for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
    """

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.received: list[bytes] = []
        self.released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status is None:
                    collector.released.wait()
                    return
                collector.received.append(body)
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def roots(self) -> list[Span]:
        """The spans that have no parent among those that were received."""
        spans: dict[str, Span] = {}
        for body in self.received:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {
                            item.key: getattr(item.value, str(item.value.WhichOneof("value")))
                            for item in span.attributes
                        }
                        spans[span.span_id.hex()] = Span(
                            span.name,
                            span.trace_id.hex(),
                            span.parent_span_id.hex(),
                            attributes,
                            [event.name for event in span.events],
                            span.status.code == span.status.STATUS_CODE_ERROR,
                            span.start_time_unix_nano,
                        )
        roots = []
        for span in sorted(spans.values(), key=lambda each: each.began):
            (spans[span.parent].children if span.parent in spans else roots).append(span)
        return roots


@contextmanager
def collecting(status: int | None = 200) -> Iterator[Collector]:
    """Run a collector; without a status, it never answers."""
    collector = Collector(status)
    try:
        yield collector
    finally:
        collector.close()
