"""Does autogenerate write a revision and its way back for each kind of change of the models?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from guvnor.lint import lint_revisions
from guvnor.schema import catalog
from guvnor.schema.snapshot import Snapshot
from tests.support import sample_data
from tests.support.command import Command
from tests.support.expect import ends, succeeds
from tests.support.project import Project
from tests.support.server import Database, Server

ENVIRONMENT = '''
from alembic import context
from sqlalchemy import (
    DDL, BigInteger, CheckConstraint, Column, Computed, DefaultClause, Enum, ForeignKey, ForeignKeyConstraint,
    Identity, Index, Integer, Numeric, PrimaryKeyConstraint, Sequence, String, Table, Text, UniqueConstraint,
    event, text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID, ExcludeConstraint
from guvnor import models
from guvnor.models import metadata

table = metadata.tables.__getitem__


def remove(item):
    """Take a constraint or index off its table."""
    (item.table.indexes if isinstance(item, Index) else item.table.constraints).discard(item)


def named(owner, name):
    """Find a constraint or an index."""
    return next(i for i in (*table(owner).constraints, *table(owner).indexes) if i.name == name)


def also(statement, when="after_create", target=metadata):
    event.listen(target, when, DDL(statement))


def change():
{change}


change()

from guvnor.application import GUVNOR
from guvnor.cli.plain_alembic import run

run(context, GUVNOR)
'''


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    :ivar change: of the models, in Python.
    :ivar has: what the revision says.
    :ivar has_not: what it must not say.
    :ivar lint: the rules that the revision breaks on purpose, with an ignore that says why.
    :ivar lint_18: more of them from PostgreSQL 18 on, which names what makes a column NOT NULL.
    :ivar todo: whether something of it is left to a person; then it is not run.
    :ivar order: whether the way back leaves a column in another place.
    :ivar rows: SQL that adds rows before.
    """

    change: str
    has: tuple[str, ...] = ()
    has_not: tuple[str, ...] = ()
    lint: frozenset[str] = frozenset()
    lint_18: frozenset[str] = frozenset()
    todo: bool = False
    order: bool = False
    rows: str = ""


def added(table: str, column: str) -> str:
    return f'table("{table}").append_column(Column({column}))'


KINDS = {
    # -- columns
    "column": Kind(
        added("incidents", '"region", String(50)'),
        has=(
            "IF NOT EXISTS (",
            "ALTER TABLE incidents ADD COLUMN region character varying(50);",
            "DATA LOSS",
        ),
    ),
    "column with an index without a name": Kind(
        added("incidents", '"region", String(50), index=True'),
        has=('"idx_incidents_region",',),
    ),
    "column with a constant": Kind(
        added("incidents", '"region", String(50), nullable=False, server_default="eu"'),
        has=("ADD COLUMN region character varying(50) NOT NULL DEFAULT 'eu'::character varying;",),
        has_not=("op.backfill", "op.set_not_null"),
    ),
    "column with a volatile default": Kind(
        added("incidents", '"token", UUID, nullable=False, server_default=text("uuid_generate_v4()")'),
        has=(
            "ADD COLUMN token uuid;",
            "SET DEFAULT uuid_generate_v4();",
            'op.backfill("incidents", "token = DEFAULT", "token IS NULL")',
            'op.set_not_null("incidents", "token")',
        ),
    ),
    "column that must be filled": Kind(
        added("incidents", '"region", String(50), nullable=False'), has=("-- TODO: ",), todo=True
    ),
    "column with a foreign key and an index": Kind(
        'key = ForeignKey("signals.id", ondelete="SET NULL")\n'
        'table("events").append_column(Column("signal_id", UUID, key))\n'
        'Index("idx_events_signal_id", table("events").c.signal_id)',
        has=(
            "NOT VALID;",
            'op.validate_constraint("events", "events_signal_id_fkey")',
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_events_signal_id",
        ),
    ),
    "serial column": Kind(
        'numbers = Sequence("incident_number_seq", metadata=metadata)\n'
        + added("incidents", '"number", Integer, numbers, server_default=numbers.next_value()'),
        has=(
            "CREATE SEQUENCE IF NOT EXISTS incident_number_seq",
            'op.backfill("incidents", "number = DEFAULT"',
        ),
    ),
    "computed column": Kind(
        added("incidents", '"title_length", Integer, Computed("length(title)", persisted=True)'),
        has=("-- TODO: ", "rewrites the whole table"),
        todo=True,
    ),
    "identity column": Kind(
        added("incidents", '"number", BigInteger, Identity(always=True)'), has=("-- TODO: ",), todo=True
    ),
    "column in the middle": Kind(
        'columns = list(table("events").columns)\n'
        'new = Column("origin", Text)\n'
        'table("events").append_column(new)\n'
        'table("events").columns._all_columns.insert(3, table("events").columns._all_columns.pop())\n'
        'table("events").columns._collection.insert(3, table("events").columns._collection.pop())',
        has=("move them in the models",),
        todo=True,
    ),
    "columns in another order": Kind(
        'for items in (table("events").columns._all_columns, table("events").columns._collection):\n'
        "    items.append(items.pop(2))",
        has=("move them in the models", "no statement was found for the downgrade"),
        todo=True,
    ),
    "column dropped": Kind(
        'table("escalation_steps")._columns.remove(table("escalation_steps").c.step_config)\n'
        'remove(named("escalation_steps", "idx_escalation_steps_config"))',
        has=("# DATA LOSS: the column escalation_steps.step_config", "DROP COLUMN IF EXISTS step_config"),
        lint=frozenset({"ban-drop-column"}),
    ),
    "column in the middle dropped": Kind(
        'table("incidents")._columns.remove(table("incidents").c.description)',
        has=("# DATA LOSS: the column incidents.description", "the last column"),
        order=True,
        lint=frozenset({"ban-drop-column"}),
    ),
    "not null": Kind(
        'table("schedules").c.description.nullable = False',
        has=('op.set_not_null("schedules", "description")', "DROP NOT NULL"),
        rows="UPDATE schedules SET description = '' WHERE description IS NULL",
    ),
    "nullable": Kind(
        'table("events").c.actor.nullable = True',
        has=("ALTER COLUMN actor DROP NOT NULL", 'op.set_not_null("events", "actor")'),
        lint=frozenset({"ban-drop-not-null"}),
    ),
    "default": Kind(
        'table("incidents").c.severity.server_default = DefaultClause(text("\'low\'"))\n'
        'table("schedules").c.active.server_default = None',
        has=("SET DEFAULT 'low'", "ALTER COLUMN active DROP DEFAULT"),
        lint=frozenset({"ban-drop-default"}),
    ),
    "wider text": Kind(
        'table("schedule_overrides").c.reason.type = String(900)',
        has=(
            "ALTER TABLE schedule_overrides ALTER COLUMN reason TYPE",
            "# LOCKS schedule_overrides while",
            "cached plan must not change result type",
        ),
        has_not=("validate_constraint", "USING", "DATA LOSS"),
        lint=frozenset({"changing-column-type"}),
    ),
    "wider text under an index that the server would build anew": Kind(
        'table("incidents").c.assignee_id.type = String(300)',
        has=("-- TODO: incidents.assignee_id becomes character varying(300)",),
        todo=True,
    ),
    "wider text under a check": Kind(
        'table("incidents").c.title.type = String(500)',
        has=(
            "ADD CONSTRAINT incident_title_not_empty",
            'validate_constraint("incidents", "incident_title_not_empty")',
        ),
        lint=frozenset({"changing-column-type"}),
    ),
    "another type": Kind(
        'table("notification_rules").c.delay_minutes.type = BigInteger()',
        has=("-- TODO: notification_rules.delay_minutes becomes bigint",),
        todo=True,
    ),
    "comments": Kind(
        'table("incidents").comment = "What is on fire, and who knows of it"\n'
        'table("incidents").c.labels.comment = "It\'s free text: {\\"a\\":true}"',
        has=("COMMENT ON TABLE incidents", "COMMENT ON COLUMN incidents.labels"),
    ),
    # -- constraints and indexes
    "check": Kind(
        'table("incidents").append_constraint(\n'
        '    CheckConstraint("length(title) < 1000", name="incident_title_short"))',
        has=("NOT VALID;", 'op.validate_constraint("incidents", "incident_title_short")'),
    ),
    "check changed": Kind(
        'remove(named("notification_rules", "notification_rule_delay_positive"))\n'
        'table("notification_rules").append_constraint(\n'
        '    CheckConstraint("delay_minutes >= -1", name="notification_rule_delay_positive"))',
        has=(
            "DROP CONSTRAINT IF EXISTS notification_rule_delay_positive",
            "NOT VALID",
            "op.validate_constraint",
        ),
    ),
    "check dropped": Kind(
        'remove(named("incidents", "incident_team_id_not_empty"))', lint=frozenset({"ban-drop-constraint"})
    ),
    "foreign key": Kind(
        'table("audit_logs").append_column(Column("policy_id", UUID))\n'
        'table("audit_logs").append_constraint(\n'
        '    ForeignKeyConstraint(["policy_id"], ["escalation_policies.id"]))',
        has=("NOT VALID", 'op.validate_constraint("audit_logs", "audit_logs_policy_id_fkey")'),
    ),
    "foreign key with another action": Kind(
        'remove(named("events", "events_incident_id_fkey"))\n'
        'table("events").append_constraint(\n'
        '    ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="events_incident_id_fkey"))',
        has=("DROP CONSTRAINT IF EXISTS events_incident_id_fkey", "NOT VALID"),
    ),
    "foreign key to a new unique constraint": Kind(
        'table("schedules").append_constraint(UniqueConstraint("name", name="schedules_name_key"))\n'
        'table("schedule_shifts").append_column(Column("schedule_name", String(255)))\n'
        'table("schedule_shifts").append_constraint(\n'
        '    ForeignKeyConstraint(["schedule_name"], ["schedules.name"], name="shift_schedule_name"))',
        has=("UNIQUE USING INDEX schedules_name_key", "shift_schedule_name"),
    ),
    "unique constraint": Kind(
        'table("schedules").append_constraint(\n'
        '    UniqueConstraint("team_id", "name", name="schedules_team_name_key", deferrable=True))',
        has=("CREATE UNIQUE INDEX CONCURRENTLY", "UNIQUE USING INDEX schedules_team_name_key DEFERRABLE"),
    ),
    "unique constraint changed": Kind(
        'remove(named("team_preferences", "team_preferences_team_id_key"))\n'
        'table("team_preferences").append_constraint(\n'
        '    UniqueConstraint("team_id", "created_at", name="team_preferences_team_id_key"))',
        has=("team_preferences_team_id_key_new", "USING INDEX"),
    ),
    "index": Kind(
        'Index("idx_incidents_open", table("incidents").c.team_id, table("incidents").c.created_at.desc(),\n'
        '      postgresql_where=text("status <> \'resolved\'"), postgresql_include=["severity"])',
        has=(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_incidents_open",
            'op.drop_index_concurrently("idx_incidents_open")',
        ),
    ),
    "unique index on an expression": Kind(
        'Index("idx_schedules_lower", text("lower(name)"), _table=table("schedules"), unique=True)',
        has=("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS idx_schedules_lower",),
    ),
    "index changed": Kind(
        'remove(named("incidents", "idx_incidents_created_at"))\n'
        'Index("idx_incidents_created_at", table("incidents").c.created_at.desc())',
        has=("idx_incidents_created_at_new", "RENAME TO idx_incidents_created_at"),
    ),
    "index dropped": Kind(
        'remove(named("incidents", "idx_incidents_severity"))',
        has=('op.drop_index_concurrently("idx_incidents_severity")', "CREATE INDEX CONCURRENTLY"),
    ),
    "exclusion constraint": Kind(
        'table("schedule_shifts").append_constraint(ExcludeConstraint(\n'
        '    (text("tstzrange(start_time, end_time)"), "&&"), name="shift_overlap"))',
        has=("-- TODO: ",),
        todo=True,
    ),
    # -- tables and types
    "table": Kind(
        'Table("teams", metadata,\n'
        '      Column("id", UUID, primary_key=True, server_default=text("uuid_generate_v4()")),\n'
        '      Column("name", String(100), nullable=False, unique=True, comment="As people say it"),\n'
        '      Column("rank", Integer, Identity()),\n'
        '      Column("label", Text, Computed("lower(name)", persisted=True)),\n'
        '      Column("policy_id", UUID, ForeignKey("escalation_policies.id")),\n'
        '      Column("kind", Enum("inner", "outer", name="team_kind", metadata=metadata),\n'
        '             server_default="inner"),\n'
        '      CheckConstraint("length(trim(name)) > 0", name="team_name_not_empty"),\n'
        '      Index("idx_teams_policy", "policy_id", postgresql_where=text("policy_id IS NOT NULL")),\n'
        '      comment="Who is paged")\n'
        'also("CREATE TRIGGER teams_updated BEFORE UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION "\n'
        '     "update_updated_at_column()", target=table("teams"))',
        has=(
            "CREATE TABLE IF NOT EXISTS teams (",
            "CREATE TYPE team_kind AS ENUM ('inner', 'outer');",
            "DATA LOSS",
        ),
        has_not=("CONCURRENTLY",),
    ),
    "serial table": Kind(
        'Table("counters", metadata, Column("id", Integer, primary_key=True), Column("n", Numeric(10, 2)))',
        has=("CREATE SEQUENCE IF NOT EXISTS counters_id_seq", "OWNED BY counters.id"),
    ),
    "tables that refer to each other": Kind(
        'Table("zones", metadata, Column("id", UUID, primary_key=True),\n'
        '      Column("main_id", UUID, ForeignKey("areas.id", name="zones_main", use_alter=True)))\n'
        'Table("areas", metadata, Column("id", UUID, primary_key=True),\n'
        '      Column("zone_id", UUID, ForeignKey("zones.id", name="areas_zone")),\n'
        '      Column("inside_id", UUID, ForeignKey("areas.id")))',
    ),
    "table dropped": Kind(
        'metadata.remove(table("audit_logs"))',
        has=("# DATA LOSS: the table audit_logs and all its rows.",),
        lint=frozenset({"ban-drop-table"}),
    ),
    "value of an enum": Kind(
        'models.incident_severity.enums.insert(1, "urgent")\nmodels.channel_type.enums.append("matrix")',
        has=(
            'op.add_enum_value("incident_severity", "urgent", after="critical")',
            'op.add_enum_value("channel_type", "matrix", after="pagerduty")',
            "# LOCKS incidents",
        ),
        lint=frozenset({"renaming-object", "changing-column-type"}),
    ),
    "value of an enum that a check names": Kind(
        'models.incident_status.enums.append("postponed")',
        has=('op.add_enum_value("incident_status", "postponed", after="resolved")',),
        lint=frozenset({"renaming-object", "changing-column-type"}),
    ),
    "value of an enum taken away": Kind(
        'models.channel_type.enums.remove("sms")',
        has=("-- TODO: the enum channel_type loses values",),
        todo=True,
    ),
    "value of an enum renamed": Kind(
        'models.channel_type.enums[2] = "text"',
        has=("RENAME VALUE 'sms' TO 'text'", "RENAME VALUE 'text' TO 'sms'"),
        lint=frozenset({"renaming-object"}),
    ),
    "new enum and a column of it": Kind(
        added("incidents", '"origin", Enum("person", "machine", name="origin", metadata=metadata)'),
        has=("CREATE TYPE origin", "DROP TYPE IF EXISTS origin"),
    ),
    # -- what SQLAlchemy has no objects for
    "function and trigger": Kind(
        'also("""CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $f$\nBEGIN\n  -- keeps: this\n'
        '    RETURN NEW;\nEND\n$f$""", "before_create")\n'
        "also(\"CREATE TRIGGER noted AFTER INSERT ON events FOR EACH ROW WHEN (NEW.actor = 'a') \"\n"
        '     "EXECUTE FUNCTION note()")',
        has=(
            "CREATE OR REPLACE FUNCTION note()",
            "CREATE TRIGGER noted",
            "DROP TRIGGER IF EXISTS noted ON events",
        ),
    ),
    "function changed": Kind(
        'also("""CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql\n'
        "AS $f$\n"
        'BEGIN\n    NEW.updated_at = clock_timestamp();\n    RETURN NEW;\nEND;\n$f$""", "before_create")',
        has=("clock_timestamp()",),
    ),
    "view": Kind(
        "also(\"CREATE VIEW open_incidents AS SELECT id, title FROM incidents WHERE status <> 'resolved'\")",
        has=("CREATE OR REPLACE VIEW open_incidents AS", "DROP VIEW IF EXISTS open_incidents"),
    ),
    "statistics, policy, sequence": Kind(
        'also("CREATE STATISTICS incident_teams (ndistinct) ON team_id, service_id FROM incidents")\n'
        'also("ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY")\n'
        "also(\"CREATE POLICY readable ON audit_logs FOR SELECT USING (actor <> 'nobody')\")\n"
        'also("CREATE SEQUENCE tickets START WITH 7")\n'
        'also("ALTER TABLE events SET (fillfactor = 80)")',
        has=(
            "CREATE STATISTICS IF NOT EXISTS",
            "CREATE POLICY readable",
            "CREATE SEQUENCE IF NOT EXISTS tickets",
        ),
    ),
    # -- names
    "names": Kind(
        'named("incidents", "idx_incidents_status").name = "incidents_by_status"\n'
        'named("signals", "signal_source_not_empty").name = "signal_source_given"',
        has=(
            "RENAME TO incidents_by_status",
            "RENAME CONSTRAINT signal_source_not_empty TO signal_source_given",
        ),
        has_not=("DATA LOSS",),
        lint=frozenset({"renaming-object"}),
    ),
    # -- what is rare, or prints in an unusual way
    "text that is easily misread": Kind(
        r"""table("incidents").comment = "100% of :this \\ it's\n  two \"lines\""
table("incidents").append_column(Column("note", Text, server_default=text("'l1:x\n  l2'")))
table("incidents").append_constraint(
    CheckConstraint("note !~ '^[a-z]+\\\\d%$' AND note <> ':y' AND note <> '$$'", name="note_odd"))
table("incidents").append_constraint(CheckConstraint("note NOT IN ('a''b', 'c%d', 'g:h')", name="note_in"))
Index("idx_note", text("lower(note) varchar_pattern_ops"), text("(labels->>'a:b') DESC"),
      _table=table("incidents"))
also("COMMENT ON INDEX idx_note IS 'it''s :x'", target=table("incidents"))""",
        has=('op.validate_constraint("incidents", "note_odd")',),
    ),
    "a backslash that stands before a colon": Kind(
        r"""table("incidents").append_column(Column("note", Text, server_default=text(r"'a\\:b :c\: 50%'")))
also(r"CREATE VIEW v1 AS SELECT id FROM incidents WHERE title ~ '^\\\\:x \\:y:z :w'")""",
        has=("from sqlalchemy import text\n\nrevision: str", "op.execute(text("),
    ),
    "domain with a check": Kind(
        'also("CREATE DOMAIN email AS text CHECK (VALUE LIKE \'%%@%%\')", "before_create")\n'
        "from sqlalchemy.dialects.postgresql import DOMAIN\n"
        + added("incidents", '"mail", DOMAIN("email", Text, create_type=False)'),
        has=(
            "CREATE DOMAIN email",
            "-- TODO: the new column incidents.mail rewrites the whole table",
        ),
        todo=True,
    ),
    "array of an enum that gets a value": Kind(
        "from sqlalchemy.dialects.postgresql import ARRAY\n"
        'models.channel_type.enums.append("matrix")\n'
        + added(
            "incidents",
            '"ways", ARRAY(models.channel_type), server_default=text("\'{sms}\'::channel_type[]")',
        ),
        has=("op.add_enum_value(", "DROP COLUMN IF EXISTS ways"),
        lint=frozenset({"renaming-object", "changing-column-type"}),
    ),
    "several columns of a foreign key": Kind(
        'table("escalation_policies").append_constraint(\n'
        '    UniqueConstraint("id", "team_id", name="policy_team"))\n'
        'table("incidents").append_constraint(ForeignKeyConstraint(\n'
        '    ["escalation_policy_id", "team_id"],\n'
        '    ["escalation_policies.id", "escalation_policies.team_id"],\n'
        '    name="incident_policy", deferrable=True, initially="DEFERRED", onupdate="CASCADE"))',
        has=("USING INDEX policy_team", "INITIALLY DEFERRED NOT VALID"),
    ),
    "primary key changed": Kind(
        'key = table("incident_signals").primary_key\n'
        'table("incident_signals").constraints.discard(key)\n'
        'table("incident_signals").append_constraint(\n'
        '    PrimaryKeyConstraint("incident_id", "signal_id", "attached_at"))',
        has=("incident_signals_pkey_new", "PRIMARY KEY USING INDEX"),
    ),
    "index methods": Kind(
        'Index("idx_brin", table("incidents").c.created_at, postgresql_using="brin",\n'
        '      postgresql_with={"pages_per_range": 32})\n'
        'Index("idx_path", table("incidents").c.labels, postgresql_using="gin",\n'
        '      postgresql_ops={"labels": "jsonb_path_ops"}, postgresql_with={"fastupdate": "off"})\n'
        'Index("idx_fill", table("incidents").c.team_id, postgresql_with={"fillfactor": 70})',
        has=("USING brin", "jsonb_path_ops", "fillfactor"),
    ),
    "views on views": Kind(
        'also("CREATE VIEW a1 AS SELECT * FROM (VALUES (1)) AS v (n)")\n'
        "also(\"CREATE VIEW v1 AS SELECT id, title FROM incidents WHERE title LIKE '%%:x%%'\")\n"
        'also("CREATE VIEW a2 AS SELECT id, upper(title) AS t FROM v1")\n'
        'also("CREATE MATERIALIZED VIEW a0 AS SELECT * FROM a2")\n'
        'also("CREATE UNIQUE INDEX a0_id ON a0 (id)")\n'
        "also(\"COMMENT ON COLUMN v1.title IS 'as typed'\")",
        has=("CREATE MATERIALIZED VIEW IF NOT EXISTS a0",),
    ),
    "constraint trigger": Kind(
        'also("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "\n'
        '     "$f$BEGIN RETURN NULL; END$f$", "before_create")\n'
        'also("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON incidents DEFERRABLE INITIALLY DEFERRED "\n'
        "     \"FOR EACH ROW EXECUTE FUNCTION note('a:b')\")\n"
        'also("CREATE TRIGGER once AFTER UPDATE ON incidents REFERENCING NEW TABLE AS rows "\n'
        '     "FOR EACH STATEMENT EXECUTE FUNCTION note()")\n'
        'also("ALTER TABLE incidents DISABLE TRIGGER once")',
        has=("CREATE CONSTRAINT TRIGGER late", "DISABLE TRIGGER once"),
    ),
    "index of a partitioned table": Kind(
        'Table("parts", metadata, Column("id", Integer, primary_key=True, autoincrement=False),\n'
        '      postgresql_partition_by="RANGE (id)")\n'
        'Index("idx_parts", table("parts").c.id)',
        has=("PARTITION BY RANGE (id)",),
    ),
    "long names": Kind(
        f'table("incidents").append_column(Column("{"c" * 63}", Text))\n'
        f'Index("{"i" * 63}", table("incidents").c["{"c" * 63}"])\n'
        f'table("incidents").append_constraint(CheckConstraint("title <> \'\'", name="{"k" * 63}"))',
    ),
    "table renamed": Kind(
        'audit = table("audit_logs")\n'
        "metadata.remove(audit)\n"
        'audit.to_metadata(metadata, name="audit_trail")',
        has=("RENAME TO audit_trail", "# BREAKS the application version that is running"),
        has_not=("DATA LOSS", "DROP TABLE"),
        lint=frozenset({"renaming-table"}),
        lint_18=frozenset({"renaming-object"}),
    ),
    "column renamed": Kind(
        'table("schedules").c.description.name = "about"',
        has=("RENAME COLUMN description TO about", "# BREAKS the application version that is running"),
        has_not=("DATA LOSS",),
        lint=frozenset({"renaming-column"}),
    ),
    "quoted names": Kind(
        'Table("Team Notes", metadata, Column("Note ID", Integer, primary_key=True, autoincrement=False),\n'
        '      Column("it\'s", Text))\n'
        + added("incidents", '"Odd \\"Name\\"", Text')
        + '\nIndex("Odd Index", table("incidents").c["Odd \\"Name\\""])',
        has=('"Team Notes"',),
    ),
}


@pytest.fixture(scope="module")
def filled(server: Server, template_at_head: Database) -> Database:
    """Version 2, with rows in every table."""
    database = server.create_database(template_at_head, keep=True)
    sample_data.fill(database)
    return database


def model(project: Project, change: str) -> None:
    """Change the models, as this project's environment sees them."""
    (project.directory / "alembic" / "env.py").write_text(ENVIRONMENT.replace("{change}", body(change)))


def body(change: str) -> str:
    """Indent code, but not what stands within triple quotes."""
    lines, inside = [], False
    for line in change.splitlines():
        lines.append(line if inside else f"    {line}")
        inside ^= line.count('"""') % 2 == 1
    return "\n".join(lines)


def schema(database: Database) -> Snapshot:
    with contextlib.closing(psycopg2.connect(database.dsn)) as connection:
        return catalog.read(connection)


def plain(snapshot: Snapshot, *, order: bool) -> dict[str, object]:
    """All that is compared of a schema.

    :param order: leave out in which order columns come.
    """
    without = {"column order"} if order else set()
    return {
        key: {name: value for name, value in item.attributes.items() if name not in without}
        for key, item in snapshot.objects.items()
    }


def without(rows: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    return {
        table: [{name: value for name, value in row.items() if name not in columns} for row in found]
        for table, found in rows.items()
    }


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_change(
    name: str, server: Server, filled: Database, project: Project, alembic: Command, guvnor: Command
) -> None:
    kind = KINDS[name]
    database = server.create_database(filled)
    if kind.rows:
        database.execute(kind.rows)
    before, rows = schema(database), sample_data.contents(database)
    model(project, kind.change)

    assert alembic("check", database=database, cwd=project.directory).code == 255
    generate = ("revision", "--autogenerate", "-m", "change")
    succeeds(alembic(*generate, database=database, cwd=project.directory))
    text = (project.versions / "003_change.py").read_text()
    compile(text, "003_change.py", "exec")
    for expected in kind.has:
        assert expected in text, text
    for unwanted in kind.has_not:
        assert unwanted not in text, text
    problems = lint_revisions(project.directory / "alembic.ini", since="002").problems
    if kind.todo:
        assert {problem.rule for problem in problems} == {"no-todo"}, text
        refused = guvnor("migrate", "up", database=database, cwd=project.directory)
        ends(refused, 3, "003_change.py is not finished")
        return
    assert "TODO" not in text, text
    rules = kind.lint | (kind.lint_18 if server.major >= 18 else frozenset())
    assert problems == (), text
    assert [rule for rule in rules if f"# lint: ignore {rule}: " not in text] == [], text

    succeeds(guvnor("migrate", "up", database=database, cwd=project.directory))
    succeeds(
        alembic("check", database=database, cwd=project.directory), "No new upgrade operations detected."
    )
    succeeds(alembic(*generate, database=database, cwd=project.directory))
    assert len(list(project.versions.glob("*.py"))) == 3
    succeeds(guvnor("migrate", "down", database=database, cwd=project.directory))
    assert plain(schema(database), order=kind.order) == plain(before, order=kind.order)
    if "DATA LOSS" not in text.split("def downgrade")[0]:
        touched = {"updated_at"} if "op.backfill" in text else set()  # a trigger sets it
        assert without(sample_data.contents(database), touched) == without(rows, touched)
    succeeds(guvnor("migrate", "up", database=database, cwd=project.directory))


def test_the_way_back_from_a_wider_column_refuses_what_it_would_cut(
    server: Server, filled: Database, project: Project, alembic: Command, guvnor: Command
) -> None:
    database = server.create_database(filled)
    here = {"database": database, "cwd": project.directory}
    model(project, 'table("signals").c.source.type = String(400)')
    succeeds(alembic("revision", "--autogenerate", "-m", "change", **here))
    succeeds(guvnor("migrate", "up", **here))
    database.execute(
        "UPDATE signals SET source = repeat('x', 300) WHERE id = (SELECT min(id::text)::uuid FROM signals)"
    )
    rows = sample_data.contents(database)
    shown = succeeds(guvnor("migrate", "plan", "down", **here))
    assert "column signals.source with 1 value that the type character varying(255) cuts" in shown.out
    ends(guvnor("migrate", "down", **here), 1, "value too long for type character varying(255)")
    assert sample_data.contents(database) == rows
    database.execute("UPDATE signals SET source = 'short' WHERE length(source) = 300")
    assert "No data would be lost." in succeeds(guvnor("migrate", "plan", "down", **here)).out
    rows = sample_data.contents(database)
    succeeds(guvnor("migrate", "down", **here))
    succeeds(guvnor("migrate", "up", **here))
    assert sample_data.contents(database) == rows


def test_a_downgrade_holds_no_other_table_while_it_reads_all_rows_of_one(
    server: Server, filled: Database, project: Project, alembic: Command, guvnor: Command
) -> None:
    database = server.create_database(filled)
    here = {"database": database, "cwd": project.directory}
    model(
        project,
        'table("signals").c.source.type = String(400)\n'
        'table("schedule_overrides").c.reason.type = String(900)\n'
        + added("incidents", '"region", String(50)'),
    )
    before = schema(database)
    succeeds(alembic("revision", "--autogenerate", "-m", "change", **here))
    down = (project.versions / "003_change.py").read_text().split("def downgrade")[1]
    parts = down.split("op.next_transaction()")
    assert [part.count("# LOCKS") for part in parts] == [1, 1, 0], down
    first, second = ("signals" if "# LOCKS signals" in part else "schedule_overrides" for part in parts[:2])
    assert lint_revisions(project.directory / "alembic.ini", since="002").problems == (), down
    succeeds(guvnor("migrate", "up", **here))

    with contextlib.closing(database.connect()) as reader, reader.cursor() as cursor:
        cursor.execute(f"BEGIN; SELECT count(*) FROM {second}")
        ends(guvnor("migrate", "down", "--max-wait", "500ms", **here), 7, f"on {second} (", "half done")
        types = dict(
            database.execute(
                "SELECT attrelid::regclass::text, atttypmod - 4 FROM pg_attribute "
                "WHERE attname IN ('source', 'reason') AND attnum > 0"
            )
        )
        assert types[first] in (255, 500)
        assert types[second] in (400, 900)
        cursor.execute("ROLLBACK")
    succeeds(guvnor("migrate", "down", **here))
    assert plain(schema(database), order=False) == plain(before, order=False)
