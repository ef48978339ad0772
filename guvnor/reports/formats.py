"""What several reports share: Markdown, JSON, and annotations of GitHub Actions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any


def titled(summary: str, *, clean: bool) -> str:
    """Return the first line of a report."""
    return f"{'✅' if clean else '❌'} {summary}"


def counted(count: int, thing: str) -> str:
    """Return a number with its noun: ``1 index``, ``2 policies``."""
    if count == 1:
        return f"1 {thing}"
    plurals = {"index": "indexes", "policy": "policies"}
    return f"{count} {plurals.get(thing, f'{thing}s')}"


def as_document(values: dict[str, Any]) -> str:
    """Return values as one JSON document."""
    return json.dumps(values, indent=2, ensure_ascii=False)


def code(text: str) -> str:
    """Return a text as inline code in Markdown."""
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (_longest_run(text) + 1)
    return f"{fence} {text} {fence}"


def fenced(language: str, lines: Sequence[str]) -> list[str]:
    """Return lines as a code block, fenced with more backticks than any of them has."""
    fence = "`" * max(3, _longest_run("\n".join(lines)) + 1)
    return [f"{fence}{language}", *lines, fence]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def annotation(level: str, message: str, **properties: object) -> str:
    """Return an annotation of GitHub Actions (see its "Workflow commands").

    :param level: ``error`` or ``notice``.
    :param properties: properties such as ``file``; those that are None are left out.
    """
    given = (
        f"{name}={_escaped(str(value)).replace(':', '%3A').replace(',', '%2C')}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{level} {','.join(given)}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
