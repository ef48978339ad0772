"""Logging: readable lines on a terminal, one JSON object per line elsewhere and always in production.

Log records go to standard error, results of commands to standard output. Where programs read both, everything
that a command says is a record, see :func:`everything_in_json`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from guvnor import config, records, terminal
from guvnor.config import Settings

_LEVEL_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
# The attributes that every LogRecord has; any other was given as `extra` and is a field.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that were given to a record as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``12:00:00 INFO  message key=value``, wrapped to the terminal that shows it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as a readable line."""
        level = _LEVEL_NAMES.get(record.levelname, record.levelname)
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        known = {name: value for name, value in fields(record).items() if value is not None}
        extra = "".join(f" {name}={' '.join(str(value).split())}" for name, value in known.items())
        line = terminal.hung(
            f"{clock} {level:<5} ", f"{record.getMessage()}{extra}", terminal.columns(sys.stderr)
        )
        line = terminal.styled(line, _STYLES.get(record.levelname, ""), sys.stderr)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as a JSON object."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": _LEVEL_NAMES.get(record.levelname, record.levelname),
            "msg": record.getMessage(),
        }
        if not record.name.startswith("guvnor"):
            content["logger"] = record.name
        content |= fields(record)
        if record.exc_info:
            content["exception"] = records.without_secrets(self.formatException(record.exc_info))
        return records.as_line(content, sys.stderr)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment: a progress bar that is shown there redirects it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return records.actual(sys.stderr)


def everything_in_json(flags: Mapping[str, str | None]) -> bool:
    """Tell whether results and errors are records, too: where JSON is asked for, and in production.

    In production, a person at a terminal reads results and errors in words.

    :param flags: values of command-line flags by option name.
    """
    if config.said("log.format", flags) == "json":
        return True
    return config.says_production(flags) and not sys.stderr.isatty()


def configure(settings: Settings) -> None:
    """Send all records, Alembic's included, to standard error in the configured format and level."""
    as_json = (
        settings.production
        or settings.log_format == "json"
        or not (settings.log_format or sys.stderr.isatty())
    )
    handler = _StandardError()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # Leave out Alembic's description of each new context (dialect, transactional DDL).
    no_news = ("alembic.runtime.migration", "__init__")
    handler.addFilter(lambda record: (record.name, record.funcName) != no_news)
    for name in ("alembic.runtime.plugins", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
