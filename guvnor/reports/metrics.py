"""``guvnor migrate metrics`` in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from guvnor.bookkeeping.history import Entry
from guvnor.commands.metrics import Metrics
from guvnor.errors import ExitCode

_PLACE = ("host", "port", "database")
_WHAT = ("direction", "revision")
_ATTEMPTS = "guvnor_migration_attempts_total"

# What is told of the database: the name behind guvnor_migration_, and its help.
_NOW = {
    "version": "The revision that the database is at; 0 for none.",
    "newest_version": "The newest revision of the files.",
    "pending": "Revisions that are not applied yet.",
    "dirty": "1 while a revision is half done.",
    "decision_needed": "1 while only a person can say how to go on.",
    "running": "1 while a migration is running.",
    "running_since_timestamp_seconds": "When the revision that is running was started.",
    "last_success_timestamp_seconds": "When a revision last succeeded.",
    "drift_differences": "Differences between the schema and its revision.",
}

# What is told of the last attempt at a revision: the name behind guvnor_migration_, its help, how an entry
# tells it, and by what that is divided to give Prometheus' base unit.
_LATEST = (
    ("duration_seconds", "How long the last attempt took.", "duration_ms", 1000),
    ("lock_wait_seconds", "How long the last attempt waited for locks.", "lock_wait_ms", 1000),
    ("tries", "How often the last attempt asked for its locks.", "tries", 1),
    ("stalled_seconds", "The longest that a session waited behind the last attempt.", "stalled_ms", 1000),
    ("stalled_sessions", "How many sessions waited behind the last attempt.", "stalled_sessions", 1),
    ("size_before_bytes", "The size of the database before the last attempt.", "size_before", 1),
    ("size_after_bytes", "The size of the database after the last attempt.", "size_after", 1),
)

NAMES = frozenset(
    {_ATTEMPTS, *(f"guvnor_migration_{name}" for name in (*_NOW, *(row[0] for row in _LATEST)))}
)
"""Every metric that there is."""


def as_text(metrics: Metrics) -> str:
    """Return the metrics as node_exporter's textfile collector reads them.

    Each has the labels ``host``, ``port`` and ``database``, so that several databases can be told apart.
    """
    registry = CollectorRegistry()
    registry.register(_Reading(metrics))
    return generate_latest(registry).decode()


class _Reading(Collector):
    """Hands the metrics to the library, which knows the format."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        identity = metrics.status.identity
        self._place = (identity.host, str(identity.port), identity.database)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric; one that has no value is left out."""
        for name, value in _now(self._metrics).items():
            if value is not None:
                gauge = GaugeMetricFamily(f"guvnor_migration_{name}", _NOW[name], labels=_PLACE)
                gauge.add_metric(self._place, value)
                yield gauge
        yield from self._attempts()
        for name, text, field, unit in _LATEST:
            gauge = GaugeMetricFamily(f"guvnor_migration_{name}", text, labels=(*_PLACE, *_WHAT))
            for what, entry in self._metrics.latest.items():
                if (value := getattr(entry, field)) is not None:
                    gauge.add_metric((*self._place, *what), value / unit)
            yield gauge

    def _attempts(self) -> Iterator[Metric]:
        labels = (*_PLACE, *_WHAT, "outcome")
        counter = CounterMetricFamily(_ATTEMPTS, "Attempts at a revision.", labels=labels)
        for what, count in self._metrics.attempts.items():
            counter.add_metric((*self._place, *what), count)
        yield counter


def _now(found: Metrics) -> dict[str, float | None]:
    status = found.status
    return {
        "version": status.state.furthest,
        "newest_version": status.newest.number,
        "pending": len(status.pending),
        "dirty": int(status.state.dirty),
        "decision_needed": int(status.exit_code is ExitCode.DECISION),
        "running": int(status.running is not None),
        "running_since_timestamp_seconds": found.running.at.timestamp() if found.running else None,
        "last_success_timestamp_seconds": _end(found.success) if found.success else None,
        "drift_differences": found.differences,
    }


def _end(entry: Entry) -> float:
    return (entry.at + timedelta(milliseconds=entry.duration_ms or 0)).timestamp()
