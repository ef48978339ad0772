"""The result file of a deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guvnor.errors import UsageError


def write_result(path: Path, record: dict[str, Any]) -> None:
    """Write the record atomically: a reader never finds half a file.

    :raises UsageError: when the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(json.dumps(record, ensure_ascii=False, indent=2, default=str) + "\n", "utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(
            f"The result file {path} cannot be written: {error.strerror}.",
            state="`guvnor migrate history` shows what a deployment did.",
            next_step="guvnor migrate history",
        ) from None
