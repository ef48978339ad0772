"""The files that tell others of a deployment: its result, the short one that Kubernetes keeps, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guvnor.errors import UsageError

TERMINATION_LOG = "termination-log"  # the name of Kubernetes' file
_ROOM = 4096  # bytes that it keeps (Kubernetes documentation, "Determine the Reason for Pod Failure")
_SHORT = 160  # characters of a text where there is no room for more


def write_result(path: Path, record: dict[str, Any]) -> None:
    """Write the record atomically: a reader never finds half a file.

    The file that Kubernetes reads is written in place, since it is mounted by itself, and cannot be replaced.

    :raises UsageError: when the file cannot be written.
    """
    try:
        if path.name == TERMINATION_LOG:
            path.write_text(shortened(record), "utf-8")
            return
        _replace(path, json.dumps(record, ensure_ascii=False, indent=2, default=str) + "\n")
    except OSError as error:
        raise UsageError(
            f"The result file {path} cannot be written: {error.strerror}.",
            state="`guvnor migrate history` shows what a deployment did.",
            next_step="guvnor migrate history",
        ) from None


def write_metrics(path: Path, text: str) -> None:
    """Write metrics atomically, as node_exporter's textfile collector asks for.

    :raises UsageError: when the file cannot be written.
    """
    try:
        _replace(path, text)
    except OSError as error:
        raise UsageError(
            f"The metrics cannot be written to {path}: {error.strerror}.",
            next_step="guvnor migrate metrics   # prints them",
        ) from None


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)


def shortened(record: Mapping[str, Any]) -> str:
    """Return a record as JSON that Kubernetes keeps whole: with fewer details where it would be too long."""
    text = _as_json(record)
    for shorten in (_without_details, _without_passed_stages, _with_short_texts):
        if len(text.encode()) <= _ROOM:
            break
        record = shorten(record)
        text = _as_json(record)
    return text


def _as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"


def _without_details(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return _with_stages(record, lambda stage: {key: stage[key] for key in stage if key != "detail"})


def _without_passed_stages(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return _with_stages(record, lambda stage: stage if stage["outcome"] == "failed" else None)


def _with_stages(
    record: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> Mapping[str, Any]:
    changed = map(change, record.get("stages", ()))
    return {**record, "stages": [stage for stage in changed if stage is not None]}


def _with_short_texts(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _SHORT:
        return f"{value[:_SHORT]} ..."
    if isinstance(value, Mapping):
        return {key: _with_short_texts(item) for key, item in value.items()}
    return value
