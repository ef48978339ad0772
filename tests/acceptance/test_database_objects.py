"""Do views, functions and triggers that the models declare make the round trip through autogenerate?"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from guvnor.lint import lint_revisions
from guvnor.schema import catalog
from tests.support import sample_data
from tests.support.command import Command
from tests.support.expect import succeeds
from tests.support.project import Project
from tests.support.server import Database, Server

pytestmark = pytest.mark.integration

ENVIRONMENT = """
from alembic import context
from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID
from guvnor import models
from guvnor.database_objects import function, trigger, view
from guvnor.models import incidents, metadata, signals
{models}
from guvnor.application import GUVNOR
from guvnor.cli.plain_alembic import run

run(context, GUVNOR)
"""

OPEN = """
view(metadata, "open_incidents", "SELECT id, title, severity FROM incidents WHERE status <> 'resolved'")
"""
NOTES = """
notes = Table(
    "notes", metadata, Column("id", Integer, primary_key=True), Column("body", Text), Column("at", Text)
)
"""
STAMP = '''
stamp = function(metadata, "stamp()", returns="trigger", body="""
    BEGIN
        NEW.at := '100%: ' || NEW.body;  -- keeps :this and {}
        RETURN NEW;
    END
""")
trigger("stamped", notes, "BEFORE INSERT OR UPDATE OF body", stamp, when="NEW.body LIKE '%:x'")
'''
SHORT = """
function(
    metadata, "is_short(value text)", returns="boolean", language="sql", options="IMMUTABLE",
    body="SELECT length(value) < {most}",
)
incidents.append_constraint(CheckConstraint("is_short(title)", name="incident_title_is_short"))
"""


@dataclass(frozen=True)
class Change:
    """A change of what the models declare.

    :ivar before: what they declare beside the tables at first.
    :ivar after: what they declare then.
    :ivar has: what the revision says.
    :ivar lint: the rules that it breaks on purpose, with the reason.
    :ivar todo: what a TODO is about, which a person has to decide on; empty for none.
    """

    before: str
    after: str
    has: tuple[str, ...] = ()
    lint: frozenset[str] = frozenset()
    todo: str = ""


DROPS_VIEW = frozenset({"ban-drop-view"})

CHANGES = {
    "view": Change("", OPEN, has=("CREATE OR REPLACE VIEW open_incidents AS", "DROP VIEW IF EXISTS")),
    "condition of a view": Change(OPEN, OPEN.replace("'resolved'", "'triggered'"), has=("'triggered'",)),
    "new column of a view": Change(
        OPEN, OPEN.replace("severity FROM", "severity, team_id FROM"), has=("CREATE OR REPLACE VIEW",)
    ),
    "column of a view that goes": Change(OPEN, OPEN.replace("title, ", "")),
    "type of a view's column": Change(OPEN, OPEN.replace("title,", "title::text AS title,")),
    "view on a view": Change(
        OPEN,
        'view(metadata, "worst", "SELECT id, title FROM open_incidents WHERE severity = \'critical\'")\n'
        + OPEN.replace("id, title, severity", "title, id, severity"),
        has=("VIEW worst",),
    ),
    "view dropped": Change(OPEN, "", has=("DROP VIEW IF EXISTS open_incidents",), lint=DROPS_VIEW),
    "view renamed": Change(OPEN, OPEN.replace("open_incidents", "active_incidents")),
    "view with options": Change(
        "",
        OPEN.replace('")', ' WITH CHECK OPTION", options="security_barrier")'),
        has=("security_barrier", "check_option=cascaded"),
    ),
    "options of a view": Change(OPEN, OPEN.replace('")', '", options="security_barrier")')),
    "view with a trigger": Change(
        "",
        OPEN.replace("view(", "opened = view(")
        + 'close = function(metadata, "close_it()", returns="trigger", body="BEGIN RETURN NULL; END")\n'
        'trigger("closes", opened, "INSTEAD OF DELETE", close)\n',
        has=("CREATE TRIGGER closes INSTEAD OF DELETE",),
    ),
    "materialized view": Change(
        "",
        'view(metadata, "by_team", "SELECT team_id, count(*) AS n FROM incidents GROUP BY team_id",\n'
        '     materialized=True, indexes=["CREATE UNIQUE INDEX by_team_id ON by_team (team_id)"])\n',
        has=("CREATE MATERIALIZED VIEW IF NOT EXISTS by_team", "by_team_id"),
    ),
    "query of a materialized view": Change(
        'view(metadata, "by_team", "SELECT team_id, count(*) AS n FROM incidents GROUP BY team_id",\n'
        '     materialized=True, indexes=["CREATE UNIQUE INDEX by_team_id ON by_team (team_id)"])\n',
        'view(metadata, "by_team", "SELECT team_id, count(id) + 1 AS n FROM incidents GROUP BY team_id",\n'
        '     materialized=True, indexes=["CREATE UNIQUE INDEX by_team_id ON by_team (team_id)"])\n',
        todo="by_team",
    ),
    "trigger on a new table": Change("", NOTES + STAMP, has=("CREATE TRIGGER stamped", "FUNCTION stamp()")),
    "body of a function": Change(NOTES + STAMP, NOTES + STAMP.replace("100%", "50%"), has=("50%",)),
    "condition of a trigger": Change(NOTES + STAMP, NOTES + STAMP.replace("%:x'", "%:y'")),
    "trigger dropped": Change(
        NOTES + STAMP,
        NOTES + STAMP.partition("trigger(")[0],
        has=("DROP TRIGGER IF EXISTS stamped ON notes",),
    ),
    "trigger and function dropped": Change(NOTES + STAMP, NOTES, lint=frozenset({"ban-drop-function"})),
    "trigger renamed": Change(NOTES + STAMP, NOTES + STAMP.replace('"stamped"', '"stamps"')),
    "function renamed": Change(NOTES + STAMP, NOTES + STAMP.replace('"stamp()"', '"stamp_it()"')),
    "function that a check uses": Change("", SHORT.replace("{most}", "900"), has=("NOT VALID",)),
    "body of a function that a check uses": Change(
        SHORT.replace("{most}", "900"), SHORT.replace("{most}", "901"), has=("901",)
    ),
    "result of a function": Change(
        'function(metadata, "half(n integer)", returns="integer", language="sql", body="SELECT n / 2")\n'
        'view(metadata, "halves", "SELECT half(2) AS n")\n',
        'function(metadata, "half(n integer)", returns="numeric", language="sql", body="SELECT n / 2.0")\n'
        'view(metadata, "halves", "SELECT half(2) AS n")\n',
        has=("numeric",),
    ),
    "function of rows and of a standard body": Change(
        "",
        'view(metadata, "firsts", "SELECT id FROM of_team(\'a\')")\n'
        'function(metadata, "of_team(team text)", returns="SETOF incidents", language="sql",\n'
        '         options="STABLE", body="SELECT * FROM incidents WHERE team_id = team")\n'
        'function(metadata, "open_ones()", returns="bigint", language="sql",\n'
        '         body="BEGIN ATOMIC SELECT count(*) FROM open_incidents; END")\n' + OPEN,
        has=("BEGIN ATOMIC",),
    ),
    "default that calls a function": Change(
        "",
        'function(metadata, "next_rank()", returns="integer",\n'
        '         body="BEGIN RETURN (SELECT coalesce(max(rank), 0) + 1 FROM ranks); END")\n'
        'Table("ranks", metadata, Column("rank", Integer, primary_key=True, autoincrement=False,\n'
        '                                server_default=text("next_rank()")))\n',
    ),
    "constraint trigger with transition tables beside": Change(
        "",
        NOTES + 'look = function(metadata, "look()", returns="trigger", body="BEGIN RETURN NULL; END")\n'
        'trigger("looks", notes, "AFTER INSERT", look, constraint="DEFERRABLE INITIALLY DEFERRED")\n'
        'trigger("counts", notes, "AFTER INSERT", "look()", each="STATEMENT",\n'
        '        referencing="NEW TABLE AS added")\n',
        has=("CREATE CONSTRAINT TRIGGER looks",),
    ),
    "view of a column that gets a wider type": Change(
        'view(metadata, "sources", "SELECT id, source FROM signals")\n',
        'view(metadata, "sources", "SELECT id, source FROM signals")\nsignals.c.source.type = Text()\n',
        lint=frozenset({"changing-column-type"}),
    ),
}


@pytest.fixture(scope="module")
def filled(server: Server, template_at_head: Database) -> Database:
    """Version 2, with rows in every table."""
    database = server.create_database(template_at_head, keep=True)
    sample_data.fill(database)
    return database


def declare(project: Project, models: str) -> None:
    """Let the models declare more, as this project's environment sees them."""
    (project.directory / "alembic" / "env.py").write_text(ENVIRONMENT.replace("{models}", models))


def schema(database: Database) -> dict[str, Any]:
    with contextlib.closing(psycopg2.connect(database.dsn)) as connection:
        return {key: item.attributes for key, item in catalog.read(connection).objects.items()}


@pytest.mark.parametrize("name", CHANGES)
def test_the_round_trip(
    name: str, server: Server, filled: Database, project: Project, alembic: Command, guvnor: Command
) -> None:
    change = CHANGES[name]
    database = server.create_database(filled)
    here: dict[str, Any] = {"database": database, "cwd": project.directory}
    generate = ("revision", "--autogenerate", "-m")
    if change.before:
        declare(project, change.before)
        succeeds(alembic(*generate, "before", **here))
        succeeds(guvnor("migrate", "up", **here))
    before, rows = schema(database), sample_data.contents(database)
    declare(project, change.after)
    succeeds(alembic(*generate, "change", **here))

    (file,) = project.versions.glob("*_change.py")
    text = file.read_text()
    if change.todo:
        assert re.search(rf"-- TODO: .*{change.todo}", text), text
        return
    assert "TODO" not in text, text
    assert [expected for expected in change.has if expected not in text] == [], text
    assert lint_revisions(project.directory / "alembic.ini", since="002").problems == (), text
    assert [rule for rule in change.lint if f"# lint: ignore {rule}: " not in text] == [], text

    succeeds(guvnor("migrate", "up", **here))
    succeeds(alembic("check", **here), "No new upgrade operations detected.")
    assert sample_data.contents(database).items() >= rows.items()
    succeeds(guvnor("migrate", "down", **here))
    assert schema(database) == before
    assert sample_data.contents(database) == rows
    succeeds(guvnor("migrate", "up", **here))
