"""The way of one pair: from the first schema to the second as a user would go, back, and there again."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from alembic import command
from alembic.config import Config
from psycopg2.extensions import connection

from guvnor.autogenerate.todos import Todo
from guvnor.lint import lint_revisions
from guvnor.schema import catalog
from tests.schema_pairs import answers, findings, rows
from tests.schema_pairs.pairs import Pair
from tests.schema_pairs.things import Schema
from tests.support.project import Project
from tests.support.server import Database, Server, run

ENVIRONMENT = """
from alembic import context
from sqlalchemy import MetaData, event

from guvnor.cli.plain_alembic import run
from guvnor.project import Project

metadata = MetaData()


@event.listens_for(metadata, "after_create")
def create(target, connection, **_):
    connection.execution_options(no_parameters=True).exec_driver_sql({models!r})


run(context, Project(lambda: metadata))
"""


_MADE = "made_at_run_time_"


class Fault(AssertionError):  # noqa: N818 (what is found)
    """Something that the product does wrong."""

    def __init__(self, what: str, details: str = "") -> None:
        super().__init__(f"{what}\n{details}")
        self.what = what


@dataclass
class Tally:
    """What was seen on the way of many pairs."""

    pairs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    todos: Counter[Todo] = field(default_factory=Counter)
    with_todo: int = 0
    left_to_a_person: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


class Road:
    """Where pairs are tried, one after the other.

    :ivar text: the revision that autogenerate wrote last.
    """

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.project = Project(directory)
        self.config = Config(str(directory / "alembic.ini"))
        self.reference = server.create_database(keep=True)
        self.tally = Tally()
        self.text = ""
        self.said = ""
        self.database: Database | None = None

    def go(self, pair: Pair, *, only_write: bool = False) -> None:
        """Try a pair.

        :param only_write: whether the revision is only written and linted.
        :raises Fault: where something is wrong.
        """
        self.tally.pairs += 1
        self.tally.kinds.update(pair.kinds)
        first, second = (self._wanted(schema) for schema in (pair.first, pair.second))
        self.text = ""
        with self._database() as database, contextlib.closing(psycopg2.connect(database.dsn)) as session:
            session.autocommit = True
            self._begin(pair, session)
            if not only_write:
                self._equal(session, first, "the first revision")
            self._generate()
            if said := findings.wrong(pair.first, pair.second, findings.titles(self.said)):
                raise Fault("drift", "\n".join(said))
            if not self.text:
                if first != second:
                    raise Fault("autogenerate wrote nothing", differences(first, second))
                return
            text = self._answer(pair)
            if text is None or only_write:
                return
            self.path.write_text(text)
            self._there_and_back(pair, session, first, second)

    def _there_and_back(self, pair: Pair, session: connection, first: Any, second: Any) -> None:
        self._move("up", pair.first, pair.second, session, second)
        self._move("down", pair.second, pair.first, session, first)
        self._move("up", pair.first, pair.second, session, second)
        with self._timed("autogenerate again"):
            before = set(self.project.versions.glob("*.py"))
            self._alembic(
                "autogenerate again", lambda: command.revision(self.config, "again", autogenerate=True)
            )
            again = set(self.project.versions.glob("*.py")) - before
        if again:
            text = again.pop().read_text()
            kinds = {todo.kind for todo in answers.find(text)}
            # The order of the models' columns is the one thing that only the models can mend.
            asked = Todo.REORDER_COLUMNS in {todo.kind for todo in answers.find(self.text)}
            if not asked or kinds != {Todo.REORDER_COLUMNS, Todo.NOTHING_FOUND}:
                raise Fault("autogenerate is not empty afterwards", text)

    def _move(self, way: str, before: Schema, after: Schema, session: connection, wanted: Any) -> None:
        must = rows.kept(session, before, after)
        with self._timed(way):
            if way == "up":
                self._alembic(way, lambda: command.upgrade(self.config, "head"))
            else:
                self._alembic(way, lambda: command.downgrade(self.config, "-1"))
        self._equal(session, wanted, way)
        there = rows.there(session, after, must)
        lost = [table for table in must if must[table] != there[table]]
        if lost:
            told = "\n".join(f"{after[t].name}: {must[t]}\nbecame {there[t]}" for t in lost)
            raise Fault(f"{way}: rows are not kept", told)

    @property
    def path(self) -> Path:
        """The file of the second revision."""
        return self.project.versions / "002_change.py"

    def _begin(self, pair: Pair, session: connection) -> None:
        for path in self.project.versions.glob("*.py"):
            path.unlink()
        self.project.add_revision(
            f"op.execute({pair.first.sql()!r})", 'op.execute("SELECT 1")', name="first", python=True
        )
        models = ENVIRONMENT.replace("{models!r}", repr(pair.second.sql()))
        (self.project.directory / "alembic" / "env.py").write_text(models)
        with self._timed("first revision"):
            self._alembic("first revision", lambda: command.upgrade(self.config, "head"))
        for sql in (*rows.inserts(pair.first), *_made_at_run_time(pair.first)):
            run(session, sql)

    def _generate(self) -> None:
        with self._timed("autogenerate"):
            self._alembic("autogenerate", lambda: command.revision(self.config, "change", autogenerate=True))
        self.text = self.path.read_text() if self.path.exists() else ""
        if not self.text:
            return
        compile(self.text, self.path.name, "exec")
        with self._timed("lint"):
            dsn = os.environ["GUVNOR_STORAGE_DSN"]
            problems = lint_revisions(self.project.directory / "alembic.ini", since="001", dsn=dsn).problems
        found = {f"{p.rule}: {p.message}" for p in problems if p.rule != "no-todo"}
        if found:
            raise Fault(
                f"lint: {sorted(p.rule for p in problems if p.rule != 'no-todo')}", "\n".join(sorted(found))
            )

    def _answer(self, pair: Pair) -> str | None:
        """Answer the TODOs; None where that cannot be done."""
        todos = answers.find(self.text)
        kinds = Counter(todo.kind for todo in todos)
        self.tally.todos.update(kinds)
        self.tally.with_todo += bool(kinds)
        for todo in todos:
            if todo.kind in answers.FAILURES:
                raise Fault(f"TODO {todo.kind.name}: {todo.said}")
        if self.text.count("TODO:") < len(todos):
            raise Fault("a TODO is of no kind")
        text = answers.answered(self.text, pair.first, pair.second)
        self.tally.left_to_a_person += text is None
        return text

    def validate(self, pair: Pair) -> None:
        """Check that the server takes both schemas, and the rows of the first."""
        self._wanted(pair.second)
        with contextlib.closing(psycopg2.connect(self.reference.dsn)) as session, session.cursor() as cursor:
            for sql in (*pair.first.statements(), *rows.inserts(pair.first)):
                cursor.execute(sql)
            rows.kept(session, pair.first, pair.second)

    def _wanted(self, schema: Schema) -> dict[str, Any]:
        """The catalogs of a schema that the server makes of its statements."""
        with contextlib.closing(psycopg2.connect(self.reference.dsn)) as session, session.cursor() as cursor:
            for sql in schema.statements():
                cursor.execute(sql)
            return catalogs(session)

    def _equal(self, session: connection, wanted: dict[str, Any], way: str) -> None:
        session.autocommit = False
        found = catalogs(session)
        session.rollback()
        session.autocommit = True
        if found != wanted:
            raise Fault(f"{way}: the catalogs differ", differences(wanted, found))

    def _alembic(self, way: str, function: Any) -> None:
        """Run an Alembic command in this process."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                function()
        except SystemExit:
            raise Fault(f"{way} failed", said.getvalue()) from None
        except Exception as error:
            raise Fault(f"{way} broke off: {type(error).__name__}: {error}") from error
        self.said = said.getvalue()

    @contextlib.contextmanager
    def _database(self) -> Iterator[Database]:
        database = self.server.create_database()
        more = {"GUVNOR_STORAGE_TYPE": "postgres", "GUVNOR_STORAGE_DSN": database.dsn, "GUVNOR_VERIFY": "no"}
        before = {name: os.environ.get(name) for name in more}
        os.environ.update(more)
        try:
            yield database
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            database.close()
            self.server.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.tally.seconds[what] += time.monotonic() - began


def _made_at_run_time(schema: Schema) -> Iterator[str]:
    """Make a partition that neither the revisions nor the models know, of each table that has room for it."""
    for table in schema.of("table"):
        if "partition key" in table.facts and table.sql.startswith("PARTITION BY RANGE"):
            name = f"{_MADE}{table.number}"
            bounds = "FOR VALUES FROM (900000) TO (900100)"
            yield f"CREATE TABLE {name} PARTITION OF {schema.name(table.number)} {bounds}"


def catalogs(session: connection) -> dict[str, Any]:
    """All that is compared of a schema; a column that is added is the last one.

    The server names the indexes and constraints of partitions; those that a job has made are not compared.
    """
    return {
        item.handle: {
            name: value for name, value in item.attributes.items() if name not in ("column order", "owner")
        }
        for item in catalog.read(session, parents=False)
        if not (item.inherited_from and item.kind != "column")
        and not any(name.startswith(f"relation:{_MADE}") for name in (item.handle, *item.parents[:1]))
    }


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """What differs, a line each."""
    lines = [f"missing {key}" for key in wanted if key not in found]
    lines += [f"unexpected {key}" for key in found if key not in wanted]
    for key in wanted.keys() & found.keys():
        for name in wanted[key]:
            if wanted[key][name] != found[key].get(name):
                lines.append(f"{key}: {name} is {found[key].get(name)!r}, not {wanted[key][name]!r}")
    return "\n".join(sorted(lines))
