"""Runs the functions of a revision file directly, without the engine around them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, NullPool, create_engine

import guvnor.online.operations  # noqa: F401  (registers the online operations)
from tests.support.command import FROZEN

VERSIONS = FROZEN / "alembic" / "versions"


@contextmanager
def connect(database: Any) -> Iterator[Connection]:
    """Open a SQLAlchemy connection to a test database."""
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(database.dsn), poolclass=NullPool
    )
    with engine.connect() as connection:
        yield connection


def run(connection: Connection, revision: str, direction: str) -> None:
    """Run ``upgrade`` or ``downgrade`` of a revision in the caller's transaction.

    Online operations take their plain form, since no runner is there that may commit.
    """
    with Operations.context(MigrationContext.configure(connection)):
        getattr(_load(revision), direction)()


def migrate(database: Any, *steps: tuple[str, str]) -> None:
    """Run steps such as ``("001", "upgrade")`` in a test database, each in a transaction of its own."""
    with connect(database) as connection:
        for revision, direction in steps:
            with connection.begin():
                run(connection, revision, direction)


def _load(revision: str) -> Any:
    (path,) = VERSIONS.glob(f"{revision}_*.py")
    specification = importlib.util.spec_from_file_location(f"revision_{revision}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
