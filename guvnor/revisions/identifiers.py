"""Identifiers of revisions: numbers of three digits or more, as Alembic and golang-migrate know them."""

from __future__ import annotations

from collections.abc import Iterable


def number(identifier: str | None) -> int:
    """Return a revision's number; 0 for none, and for an identifier that is no number."""
    return int(identifier) if identifier and identifier.isdecimal() else 0


def following(identifiers: Iterable[str]) -> str:
    """Return the identifier after the last of some: ``003``."""
    return f"{max(map(number, identifiers), default=0) + 1:03d}"
