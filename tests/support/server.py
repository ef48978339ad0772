"""A PostgreSQL server under test, and what a test makes on it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2
from psycopg2.extensions import connection, parse_dsn


def uri(parameters: Mapping[str, object]) -> str:
    """Write libpq parameters as a URI that holds them all."""
    rest = {key: str(value) for key, value in parameters.items() if value}
    user, password = quote(rest.pop("user", ""), safe=""), quote(rest.pop("password", ""), safe="")
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    place = ""
    if rest.get("host") and not set("/,") & set(rest["host"]):  # else a socket, or several hosts
        host = rest.pop("host")
        place = (f"[{host}]" if ":" in host else host) + (f":{rest.pop('port')}" if "port" in rest else "")
    name = quote(rest.pop("dbname", ""), safe="")
    query = urlencode(rest, quote_via=quote)
    return f"postgresql://{login}{place}/{name}" + (f"?{query}" if query else "")


def run(session: connection, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """Run SQL in autocommit mode and return the rows of the last statement."""
    session.autocommit = True
    with session.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description is not None else []


@dataclass(frozen=True)
class Role:
    """A role that can log in."""

    name: str
    password: str


class Target:
    """Something to connect to."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._open: list[connection] = []

    def connect(self, **parameters: Any) -> connection:
        """Connect in autocommit mode; closed at the latest when the test ends."""
        opened = psycopg2.connect(self.dsn, **parameters)
        opened.autocommit = True
        self._open.append(opened)
        return opened

    def execute(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL on a connection of its own and return the rows of the last statement."""
        with contextlib.closing(psycopg2.connect(self.dsn)) as once:
            return run(once, sql, parameters)

    def dsn_with(self, role: Role | None = None, **parameters: object) -> str:
        """The connection string with another role, or with other libpq parameters (None takes one away)."""
        changed: dict[str, object] = dict(parse_dsn(self.dsn))
        if role is not None:
            changed |= {"user": role.name, "password": role.password}
        for key, value in parameters.items():
            changed[key] = value
        return uri(changed)

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


class Database(Target):
    """A database of one test."""

    def __init__(self, dsn: str, name: str) -> None:
        super().__init__(dsn)
        self.name = name


class Server(Target):
    """The server of this run of the suite.

    ``dsn`` is that of a superuser. What is made here during a test is dropped when the test ends; what was
    made before it (by a fixture of a larger scope), when the run ends. All names begin with ``prefix``.
    """

    def __init__(self, dsn: str, kind: str) -> None:
        with contextlib.closing(psycopg2.connect(dsn)) as once:
            self.version: int = once.server_version
            self.version_name = once.info.parameter_status("server_version")
            # Commands under test do not see the PG* variables that may have filled gaps in it.
            used = {key: getattr(once.info, key) for key in ("host", "port", "user", "password", "dbname")}
        super().__init__(uri({**used, **parse_dsn(dsn)}))
        self.kind = kind
        self.prefix = f"guvnor_test_{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._made: dict[str, Database | Role] = {}
        self._kept: set[str] = set()
        self._doomed: set[str] = set()
        self._admin: connection | None = None

    def execute(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL as superuser in the maintenance database and return the rows of the last statement."""
        if self._admin is None or self._admin.closed:
            self._admin = psycopg2.connect(self.dsn)
        return run(self._admin, sql, parameters)

    @property
    def major(self) -> int:
        return self.version // 10_000

    def create_database(
        self,
        template: Database | None = None,
        *,
        owner: Role | None = None,
        options: str = "",
        keep: bool = False,
    ) -> Database:
        """Make a database.

        :param template: what it is a copy of (nobody may be connected to that); else it is empty.
        :param owner: its owner, the superuser when left out.
        :param options: more of CREATE DATABASE.
        :param keep: whether it is kept when the test ends, for those that follow.
        """
        name = self._name("db")
        source = template.name if template else "template0"
        owned = f'OWNER "{owner.name}"' if owner else ""
        # A copy through the WAL needs no checkpoint; before PostgreSQL 15 there is no choice.
        strategy = "STRATEGY wal_log" if self.major >= 15 else ""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" {owned} {strategy} {options}')
        self._made[name] = database = Database(self.dsn_with(dbname=name), name)
        if keep:
            self._kept.add(name)
        return database

    def create_role(self, options: str = "") -> Role:
        """Make a role that logs in with a password.

        :param options: more of CREATE ROLE, such as ``CREATEDB``.
        """
        role = Role(self._name("role"), secrets.token_urlsafe(12))
        self.execute(f'CREATE ROLE "{role.name}" LOGIN PASSWORD %s {options}', [role.password])
        self._made[role.name] = role
        return role

    @contextlib.contextmanager
    def tidy(self) -> Iterator[None]:
        """Drop what is made in between, but for what is to be kept.

        It is dropped when the next test ends: DROP DATABASE sleeps 100 ms when a session is just leaving.
        """
        before = set(self._made)
        try:
            yield
        finally:
            doomed, self._doomed = self._doomed, set(self._made) - before - self._kept
            self._disconnect(self._doomed)
            self._drop(doomed)

    def drop_all(self) -> None:
        """Drop what was made in this run."""
        self.close()
        self._drop(set(self._made))

    def disconnect(self) -> None:
        """Close the connection that is kept open."""
        if self._admin is not None:
            self._admin.close()

    def _disconnect(self, names: set[str]) -> None:
        for name in names:
            if isinstance(made := self._made[name], Database):
                made.close()

    def _drop(self, names: set[str]) -> None:
        self._disconnect(names)
        for name in [name for name in names if isinstance(self._made[name], Database)]:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if roles := [f'"{name}"' for name in names if isinstance(self._made[name], Role)]:
            self.execute(f"DROP ROLE IF EXISTS {', '.join(roles)}")  # at once: one may have granted another
        for name in names:
            del self._made[name]

    def left_over(self) -> list[str]:
        """Name what of this run is still on the server."""
        found = self.execute(
            """
            SELECT 'database ' || datname FROM pg_database WHERE starts_with(datname, %(prefix)s)
            UNION ALL
            SELECT 'role ' || rolname FROM pg_roles WHERE starts_with(rolname, %(prefix)s)
            """,
            {"prefix": self.prefix},
        )
        return [name for (name,) in found]

    def _name(self, kind: str) -> str:
        return f"{self.prefix}_{kind}{next(self._numbers)}"
