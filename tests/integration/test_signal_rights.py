"""Is only somebody advised to end a session who may, and else told whom to ask?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection

from guvnor.migrate import locks
from guvnor.online import blockers
from tests.support.server import Database, Role, Server, run

CANCEL, END = "SELECT pg_cancel_backend({});", "SELECT pg_terminate_backend({});"
A_SUPERUSER = "Ask a superuser to run: "


@pytest.fixture
def as_role(database: Database) -> Callable[[Role | None], connection]:
    """Connect as a role, or as a superuser."""

    def connect(role: Role | None) -> connection:
        made = psycopg2.connect(database.dsn_with(role) if role else database.dsn)
        made.autocommit = True
        return made

    return connect


def advice(session: connection, target: connection) -> str:
    """Return what is advised, once it is sure that the server would do what it says."""
    pid = target.info.backend_pid
    said = blockers.session(session, pid).way_out
    first = said.partition("SELECT")[0]
    may = not first.startswith("Ask ")
    if may and first:
        run(session, first)
    try:
        assert run(session, f"SELECT pg_cancel_backend({pid})") == [(True,)]
        assert may, said
    except psycopg2.errors.InsufficientPrivilege:
        assert not may, said
    finally:
        run(session, "RESET ROLE")
    return first


def test_each_role_is_advised_what_it_may_do(
    server: Server, as_role: Callable[[Role | None], connection]
) -> None:
    own, member, signaling, stranger, noinherit = (server.create_role() for _ in range(5))
    server.execute(f'GRANT "{own.name}" TO "{member.name}"')
    server.execute(f'GRANT pg_signal_backend TO "{signaling.name}"')
    server.execute(f'ALTER ROLE "{noinherit.name}" NOINHERIT')
    server.execute(f'GRANT "{own.name}" TO "{noinherit.name}"')
    to_ask = f"Ask role {own.name}, or a member of pg_signal_backend, to run: "
    with closing(as_role(own)) as target, closing(as_role(None)) as superuser:
        found = {}
        for role in (own, member, signaling, stranger, noinherit, None):
            with closing(as_role(role)) as session:
                found[role] = advice(session, target), role and advice(session, superuser)
        with closing(as_role(noinherit)) as session:
            run(session, f'SET ROLE "{own.name}"')
            acting = blockers.session(session, target.info.backend_pid).way_out
    assert found == {
        **dict.fromkeys((own, member, signaling), ("", A_SUPERUSER)),
        **dict.fromkeys((stranger, noinherit), (to_ask, A_SUPERUSER)),
        None: ("", None),
    }
    assert acting.startswith(f"SET ROLE {own.name}; SELECT pg_terminate_backend(")


def test_the_holder_of_the_run_lock_is_ended_by_who_may(
    server: Server, as_role: Callable[[Role | None], connection]
) -> None:
    own, stranger = server.create_role(), server.create_role()
    with closing(as_role(own)) as target, closing(as_role(stranger)) as session:
        run(target, f"SELECT pg_advisory_lock({locks.RUN_LOCK})")
        pid = target.info.backend_pid
        for who, first in ((target, ""), (session, f"Ask role {own.name}, or a member of ")):
            holder = locks.holder(who, locks.RUN_LOCK)
            assert holder is not None
            assert holder.ends_it.startswith(first)
            assert holder.ends_it.endswith(f"SELECT pg_terminate_backend({pid});")
