"""Is every way to change a live schema found, named and explained, and nothing else with it?"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import psycopg2
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extensions import connection as Connection  # noqa: N812 (a type)

from guvnor.postgres import connect
from guvnor.revisions.files import configuration_file
from guvnor.schema import catalog, root_causes, shadow
from guvnor.schema.shadow import Shadow
from tests.support.drift import Case, cases, left_after, statements
from tests.support.server import Database, Server

# name of the case, what is done, and the one finding: change, kind, object
CHANGES = """
table added | CREATE TABLE extra (id integer PRIMARY KEY, name text UNIQUE CHECK (name <> ''))
    | unexpected table extra
table dropped | DROP TABLE audit_logs | missing table audit_logs
table dropped with foreign keys to it | DROP TABLE escalation_policies CASCADE
    | missing table escalation_policies
table renamed | ALTER TABLE events RENAME TO happenings | different table events
table moved away | CREATE SCHEMA elsewhere; ALTER TABLE incidents SET SCHEMA elsewhere
    | missing table incidents
table replaced by a view | DROP TABLE audit_logs; CREATE VIEW audit_logs AS SELECT 1 AS id
    | different table audit_logs
unlogged | ALTER TABLE audit_logs SET UNLOGGED | different table audit_logs
table option | ALTER TABLE incidents SET (autovacuum_enabled = false) | different table incidents
fill factor | ALTER TABLE incidents SET (fillfactor = 70) | different table incidents
toast option | ALTER TABLE incidents SET (toast.autovacuum_enabled = false) | different table incidents
row security | ALTER TABLE incidents ENABLE ROW LEVEL SECURITY | different table incidents
row security forced | ALTER TABLE incidents FORCE ROW LEVEL SECURITY | different table incidents
replica identity full | ALTER TABLE incidents REPLICA IDENTITY FULL | different table incidents
replica identity nothing | ALTER TABLE incidents REPLICA IDENTITY NOTHING | different table incidents
replica identity index | ALTER TABLE team_preferences REPLICA IDENTITY USING INDEX
    team_preferences_team_id_key
    | different table team_preferences
table owner | ALTER TABLE incidents OWNER TO {role} | different table incidents
table comment | COMMENT ON TABLE incidents IS 'it''s new' | different table incidents
inheritance | CREATE TABLE extra () INHERITS (incidents) | unexpected table extra
inherits | CREATE TABLE extra (id uuid NOT NULL); ALTER TABLE audit_logs INHERIT extra
    | different table audit_logs, unexpected table extra
partitioned | CREATE TABLE extra (id integer) PARTITION BY RANGE (id); CREATE TABLE extra_1 PARTITION OF
    extra DEFAULT
    | unexpected table extra, unexpected table extra_1
typed table | CREATE TYPE shape AS (a integer); CREATE TABLE extra OF shape
    | unexpected table extra, unexpected type shape
foreign table | CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE
    extra (a text) SERVER s
    | unexpected foreign data wrapper w, unexpected foreign server s, unexpected foreign table extra

column added | ALTER TABLE incidents ADD COLUMN extra text | unexpected column incidents.extra
column added with constraints
    | ALTER TABLE incidents ADD COLUMN extra integer NOT NULL UNIQUE DEFAULT 3 CHECK (extra > 0)
    | unexpected column incidents.extra
serial column | ALTER TABLE incidents ADD COLUMN extra serial | unexpected column incidents.extra
column dropped | ALTER TABLE incidents DROP COLUMN service_id | missing column incidents.service_id
column dropped with foreign key | ALTER TABLE incidents DROP COLUMN escalation_policy_id
    | missing column incidents.escalation_policy_id
column renamed | ALTER TABLE incidents RENAME COLUMN title TO headline | different column incidents.title
last column renamed | ALTER TABLE incidents RENAME COLUMN escalation_policy_id TO policy
    | different column incidents.escalation_policy_id
column made longer | ALTER TABLE incidents ALTER COLUMN title TYPE varchar(300)
    | different column incidents.title
column to text | ALTER TABLE schedule_rotations ALTER COLUMN rotation_type TYPE text
    | different column schedule_rotations.rotation_type
timestamp without zone | ALTER TABLE events ALTER COLUMN occurred_at TYPE timestamp
    | different column events.occurred_at
integer to bigint | ALTER TABLE escalation_steps ALTER COLUMN step_order TYPE bigint
    | different column escalation_steps.step_order
collation of a short text | ALTER TABLE schedule_overrides ALTER COLUMN reason TYPE varchar(500) COLLATE "C"
    | different column schedule_overrides.reason
collation | ALTER TABLE incidents ALTER COLUMN description TYPE text COLLATE "C"
    | different column incidents.description
default changed | ALTER TABLE notification_rules ALTER COLUMN delay_minutes SET DEFAULT 5
    | different column notification_rules.delay_minutes
default dropped | ALTER TABLE incidents ALTER COLUMN id DROP DEFAULT | different column incidents.id
default added | ALTER TABLE incidents ALTER COLUMN title SET DEFAULT 'x' | different column incidents.title
null allowed | ALTER TABLE incidents ALTER COLUMN team_id DROP NOT NULL | different column incidents.team_id
null forbidden | ALTER TABLE incidents ALTER COLUMN description SET NOT NULL
    | different column incidents.description
identity | ALTER TABLE escalation_steps ALTER COLUMN step_order ADD GENERATED ALWAYS AS IDENTITY
    | different column escalation_steps.step_order
storage | ALTER TABLE incidents ALTER COLUMN description SET STORAGE EXTERNAL
    | different column incidents.description
compression | ALTER TABLE incidents ALTER COLUMN description SET COMPRESSION pglz
    | different column incidents.description
column statistics target | ALTER TABLE incidents ALTER COLUMN team_id SET STATISTICS 500
    | different column incidents.team_id
column option | ALTER TABLE incidents ALTER COLUMN team_id SET (n_distinct = 50)
    | different column incidents.team_id
column comment | COMMENT ON COLUMN incidents.title IS 'new' | different column incidents.title
column order | ALTER TABLE schedule_shifts DROP COLUMN created_at;
    ALTER TABLE schedule_shifts DROP COLUMN end_time CASCADE;
    ALTER TABLE schedule_shifts ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(), ADD COLUMN end_time
    timestamptz NOT NULL;
    ALTER TABLE schedule_shifts ADD CONSTRAINT shift_time_order CHECK (start_time < end_time);
    CREATE INDEX idx_schedule_shifts_end_time ON schedule_shifts (end_time);
    CREATE INDEX idx_schedule_shifts_time_range ON schedule_shifts (start_time, end_time);
    CREATE INDEX idx_schedule_shifts_user_time ON schedule_shifts (user_id, start_time, end_time)
    | different table schedule_shifts

check dropped | ALTER TABLE incidents DROP CONSTRAINT incident_title_not_empty
    | missing constraint incidents.incident_title_not_empty
check added | ALTER TABLE incidents ADD CONSTRAINT extra CHECK (title <> 'x')
    | unexpected constraint incidents.extra
check changed | ALTER TABLE schedule_shifts DROP CONSTRAINT shift_time_order,
    ADD CONSTRAINT shift_time_order CHECK (start_time <= end_time)
    | different constraint schedule_shifts.shift_time_order
check with another list | ALTER TABLE schedule_rotations DROP CONSTRAINT rotation_type_valid,
    ADD CONSTRAINT rotation_type_valid CHECK (rotation_type IN ('daily', 'weekly', 'yearly'))
    | different constraint schedule_rotations.rotation_type_valid
check not valid | ALTER TABLE schedule_shifts DROP CONSTRAINT shift_time_order,
    ADD CONSTRAINT shift_time_order CHECK (start_time < end_time) NOT VALID
    | different constraint schedule_shifts.shift_time_order
check not inherited | ALTER TABLE schedule_shifts DROP CONSTRAINT shift_time_order,
    ADD CONSTRAINT shift_time_order CHECK (start_time < end_time) NO INHERIT
    | different constraint schedule_shifts.shift_time_order
constraint renamed | ALTER TABLE incidents RENAME CONSTRAINT incident_title_not_empty TO title_set
    | different constraint incidents.incident_title_not_empty
constraint comment | COMMENT ON CONSTRAINT shift_time_order ON schedule_shifts IS 'new'
    | different constraint schedule_shifts.shift_time_order
foreign key dropped | ALTER TABLE events DROP CONSTRAINT events_incident_id_fkey
    | missing constraint events.events_incident_id_fkey
foreign key without cascade | ALTER TABLE events DROP CONSTRAINT events_incident_id_fkey,
    ADD CONSTRAINT events_incident_id_fkey FOREIGN KEY (incident_id) REFERENCES incidents
    | different constraint events.events_incident_id_fkey
foreign key not valid | ALTER TABLE events DROP CONSTRAINT events_incident_id_fkey,
    ADD CONSTRAINT events_incident_id_fkey FOREIGN KEY (incident_id) REFERENCES incidents ON DELETE CASCADE
    NOT VALID
    | different constraint events.events_incident_id_fkey
foreign key deferrable | ALTER TABLE events ALTER CONSTRAINT events_incident_id_fkey DEFERRABLE INITIALLY
    DEFERRED
    | different constraint events.events_incident_id_fkey
foreign key switched off | ALTER TABLE events DISABLE TRIGGER ALL
    | different constraint events.events_incident_id_fkey
foreign key added | ALTER TABLE audit_logs ADD CONSTRAINT extra FOREIGN KEY (id) REFERENCES incidents
    | unexpected constraint audit_logs.extra
primary key dropped | ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey
    | missing constraint audit_logs.audit_logs_pkey
primary key dropped with foreign keys | ALTER TABLE incidents DROP CONSTRAINT incidents_pkey CASCADE
    | missing constraint incidents.incidents_pkey
primary key of more columns | ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey,
    ADD CONSTRAINT audit_logs_pkey PRIMARY KEY (id, actor) | different constraint audit_logs.audit_logs_pkey
primary key including | ALTER TABLE audit_logs DROP CONSTRAINT audit_logs_pkey,
    ADD CONSTRAINT audit_logs_pkey PRIMARY KEY (id) INCLUDE (actor)
    | different constraint audit_logs.audit_logs_pkey
primary key renamed | ALTER INDEX incidents_pkey RENAME TO incidents_key
    | different constraint incidents.incidents_pkey
unique dropped | ALTER TABLE team_preferences DROP CONSTRAINT team_preferences_team_id_key
    | missing constraint team_preferences.team_preferences_team_id_key
unique added | ALTER TABLE incidents ADD CONSTRAINT extra UNIQUE (title)
    | unexpected constraint incidents.extra
unique deferrable | ALTER TABLE team_preferences DROP CONSTRAINT team_preferences_team_id_key,
    ADD CONSTRAINT team_preferences_team_id_key UNIQUE (team_id) DEFERRABLE
    | different constraint team_preferences.team_preferences_team_id_key
exclusion added | ALTER TABLE schedule_shifts ADD CONSTRAINT extra EXCLUDE USING gist (tstzrange(start_time,
    end_time) WITH &&)
    | unexpected constraint schedule_shifts.extra
unique index in place of the constraint | ALTER TABLE team_preferences DROP CONSTRAINT
    team_preferences_team_id_key;
    CREATE UNIQUE INDEX team_preferences_team_id_key ON team_preferences (team_id)
    | missing constraint team_preferences.team_preferences_team_id_key,
      unexpected index team_preferences.team_preferences_team_id_key
options of a key's index | ALTER INDEX incidents_pkey SET (fillfactor = 60)
    | different constraint incidents.incidents_pkey

index dropped | DROP INDEX idx_incidents_status | missing index incidents.idx_incidents_status
index added | CREATE INDEX extra ON incidents (title) | unexpected index incidents.extra
unique index added | CREATE UNIQUE INDEX extra ON incidents (title) | unexpected index incidents.extra
expression index added | CREATE INDEX extra ON incidents (lower(title)) | unexpected index incidents.extra
index renamed | ALTER INDEX idx_incidents_status RENAME TO idx_status
    | different index incidents.idx_incidents_status
index of other columns | DROP INDEX idx_incidents_team_status;
    CREATE INDEX idx_incidents_team_status ON incidents (status, team_id)
    | different index incidents.idx_incidents_team_status
index on another table | DROP INDEX idx_events_type; CREATE INDEX idx_events_type ON audit_logs (action)
    | missing index events.idx_events_type, unexpected index audit_logs.idx_events_type
access method | DROP INDEX idx_incidents_status; CREATE INDEX idx_incidents_status ON incidents USING hash
    (status)
    | different index incidents.idx_incidents_status
operator class | DROP INDEX idx_incidents_labels;
    CREATE INDEX idx_incidents_labels ON incidents USING gin (labels jsonb_path_ops)
    | different index incidents.idx_incidents_labels
descending | DROP INDEX idx_incidents_created_at;
    CREATE INDEX idx_incidents_created_at ON incidents (created_at DESC)
    | different index incidents.idx_incidents_created_at
index collation | DROP INDEX idx_incidents_team_id; CREATE INDEX idx_incidents_team_id ON incidents (team_id
    COLLATE "C")
    | different index incidents.idx_incidents_team_id
predicate dropped | DROP INDEX idx_incidents_resolved_at; CREATE INDEX idx_incidents_resolved_at ON incidents
    (resolved_at)
    | different index incidents.idx_incidents_resolved_at
predicate changed | DROP INDEX idx_schedules_active;
    CREATE INDEX idx_schedules_active ON schedules (active) WHERE active = false
    | different index schedules.idx_schedules_active
included column | DROP INDEX idx_incidents_status; CREATE INDEX idx_incidents_status ON incidents (status)
    INCLUDE (title)
    | different index incidents.idx_incidents_status
made unique | DROP INDEX idx_incidents_status; CREATE UNIQUE INDEX idx_incidents_status ON incidents (status)
    | different index incidents.idx_incidents_status
index option | ALTER INDEX idx_incidents_status SET (fillfactor = 50)
    | different index incidents.idx_incidents_status
invalid index | UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_incidents_status'::regclass
    | different index incidents.idx_incidents_status
clustered | ALTER TABLE incidents CLUSTER ON idx_incidents_status
    | different index incidents.idx_incidents_status
clustered on the key | ALTER TABLE incidents CLUSTER ON incidents_pkey
    | different constraint incidents.incidents_pkey
index comment | COMMENT ON INDEX idx_incidents_status IS 'new'
    | different index incidents.idx_incidents_status

trigger dropped | DROP TRIGGER update_incidents_updated_at ON incidents
    | missing trigger incidents.update_incidents_updated_at
trigger disabled | ALTER TABLE incidents DISABLE TRIGGER update_incidents_updated_at
    | different trigger incidents.update_incidents_updated_at
trigger on replicas only | ALTER TABLE incidents ENABLE REPLICA TRIGGER update_incidents_updated_at
    | different trigger incidents.update_incidents_updated_at
trigger always | ALTER TABLE incidents ENABLE ALWAYS TRIGGER update_incidents_updated_at
    | different trigger incidents.update_incidents_updated_at
trigger after | DROP TRIGGER update_incidents_updated_at ON incidents;
    CREATE TRIGGER update_incidents_updated_at AFTER UPDATE ON incidents FOR EACH ROW EXECUTE FUNCTION
    update_updated_at_column()
    | different trigger incidents.update_incidents_updated_at
trigger with a condition | DROP TRIGGER update_incidents_updated_at ON incidents;
    CREATE TRIGGER update_incidents_updated_at BEFORE UPDATE ON incidents FOR EACH ROW WHEN (old.title <>
    new.title)
    EXECUTE FUNCTION update_updated_at_column() | different trigger incidents.update_incidents_updated_at
trigger added | CREATE TRIGGER extra BEFORE DELETE ON incidents FOR EACH ROW EXECUTE FUNCTION
    update_updated_at_column()
    | unexpected trigger incidents.extra
constraint trigger | CREATE CONSTRAINT TRIGGER extra AFTER INSERT ON incidents DEFERRABLE FOR EACH ROW
    EXECUTE FUNCTION update_updated_at_column() | unexpected trigger incidents.extra
trigger renamed | ALTER TRIGGER update_incidents_updated_at ON incidents RENAME TO extra
    | different trigger incidents.update_incidents_updated_at
trigger comment | COMMENT ON TRIGGER update_incidents_updated_at ON incidents IS 'new'
    | different trigger incidents.update_incidents_updated_at

function body | CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN NEW.updated_at := clock_timestamp();RETURN NEW;END'
    | different function update_updated_at_column()
function dropped | DROP FUNCTION update_updated_at_column() CASCADE
    | missing function update_updated_at_column()
function renamed | ALTER FUNCTION update_updated_at_column() RENAME TO touch
    | different function update_updated_at_column()
function volatility | ALTER FUNCTION update_updated_at_column() STABLE
    | different function update_updated_at_column()
function strict | ALTER FUNCTION update_updated_at_column() STRICT
    | different function update_updated_at_column()
security definer | ALTER FUNCTION update_updated_at_column() SECURITY DEFINER
    | different function update_updated_at_column()
leakproof | ALTER FUNCTION update_updated_at_column() LEAKPROOF
    | different function update_updated_at_column()
function cost | ALTER FUNCTION update_updated_at_column() COST 7
    | different function update_updated_at_column()
function parallel | ALTER FUNCTION update_updated_at_column() PARALLEL SAFE
    | different function update_updated_at_column()
function settings | ALTER FUNCTION update_updated_at_column() SET search_path = pg_temp
    | different function update_updated_at_column()
function owner | ALTER FUNCTION update_updated_at_column() OWNER TO {role}
    | different function update_updated_at_column()
function comment | COMMENT ON FUNCTION update_updated_at_column() IS 'new'
    | different function update_updated_at_column()
function added | CREATE FUNCTION extra(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'
    | unexpected function extra(a integer)
overload added | CREATE FUNCTION update_updated_at_column(a integer) RETURNS integer LANGUAGE sql AS 'SELECT
    1'
    | unexpected function update_updated_at_column(a integer)
procedure added | CREATE PROCEDURE extra() LANGUAGE sql AS 'SELECT 1' | unexpected procedure extra()
aggregate added | CREATE AGGREGATE extra(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0')
    | unexpected aggregate extra(integer)

label added | ALTER TYPE channel_type ADD VALUE 'fax' | different type channel_type
label added in between | ALTER TYPE incident_severity ADD VALUE 'worse' BEFORE 'high'
    | different type incident_severity
label renamed | ALTER TYPE incident_status RENAME VALUE 'resolved' TO 'closed'
    | different type incident_status
label of a default renamed | ALTER TYPE incident_status RENAME VALUE 'triggered' TO 'fired'
    | different type incident_status
type renamed | ALTER TYPE channel_type RENAME TO channel | different type channel_type
type owner | ALTER TYPE channel_type OWNER TO {role} | different type channel_type
type comment | COMMENT ON TYPE channel_type IS 'new' | different type channel_type
type dropped | DROP TYPE channel_type CASCADE | missing type channel_type
enum added | CREATE TYPE extra AS ENUM ('a', 'b') | unexpected type extra
domain added | CREATE DOMAIN extra AS text CHECK (value <> '') | unexpected type extra
composite type added | CREATE TYPE extra AS (a integer, b text) | unexpected type extra
range type added | CREATE TYPE extra AS RANGE (SUBTYPE = float8) | unexpected type extra
shell type added | CREATE TYPE extra | unexpected type extra

sequence added | CREATE SEQUENCE extra | unexpected sequence extra
view added | CREATE VIEW extra AS SELECT id, title FROM incidents | unexpected view extra
materialized view added | CREATE MATERIALIZED VIEW extra AS SELECT id FROM incidents; CREATE INDEX ON extra
    (id)
    | unexpected materialized view extra
rule added | CREATE RULE extra AS ON DELETE TO incidents DO INSTEAD NOTHING | unexpected rule incidents.extra
policy added | CREATE POLICY extra ON incidents USING (team_id = current_user)
    | unexpected policy incidents.extra
statistics added | CREATE STATISTICS extra ON team_id, status FROM incidents | unexpected statistics extra
operator added | CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)
    | unexpected operator ===(text, text)
cast added | CREATE CAST (incident_status AS channel_type) WITH INOUT
    | unexpected cast (incident_status AS channel_type)
collation added | CREATE COLLATION extra FROM "C" | unexpected collation extra
text search configuration | CREATE TEXT SEARCH CONFIGURATION extra (COPY = simple)
    | unexpected text search configuration extra
text search dictionary | CREATE TEXT SEARCH DICTIONARY extra (TEMPLATE = simple)
    | unexpected text search dictionary extra
conversion added | CREATE CONVERSION extra FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1
    | unexpected conversion extra
operator family | CREATE OPERATOR FAMILY extra USING btree | unexpected operator family extra USING btree
access method added | CREATE ACCESS METHOD extra TYPE TABLE HANDLER heap_tableam_handler
    | unexpected access method extra
publication | CREATE PUBLICATION extra FOR TABLE incidents | unexpected publication extra
publication of all tables | CREATE PUBLICATION extra FOR ALL TABLES | unexpected publication extra
event trigger | CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER extra ON ddl_command_end EXECUTE FUNCTION watch()
    | unexpected function watch(), unexpected event trigger extra
extension added | CREATE EXTENSION btree_gist | unexpected extension btree_gist
extension dropped | DROP EXTENSION btree_gin | missing extension btree_gin
extension moved | CREATE SCHEMA elsewhere; ALTER EXTENSION btree_gin SET SCHEMA elsewhere
    | different extension btree_gin
schema comment | COMMENT ON SCHEMA public IS 'new' | different schema public

grant on a table | GRANT SELECT ON incidents TO {role} | unexpected privilege table incidents
grant to everybody | GRANT INSERT ON incidents TO PUBLIC | unexpected privilege table incidents
grant on a column | GRANT UPDATE (title) ON incidents TO {role} | unexpected privilege column incidents.title
grant on the schema | GRANT CREATE ON SCHEMA public TO {role} | unexpected privilege schema public
grant on a type | GRANT USAGE ON TYPE channel_type TO {role} | unexpected privilege type channel_type
grant on a function | GRANT EXECUTE ON FUNCTION update_updated_at_column() TO {role}
    | unexpected privilege function update_updated_at_column()
grant with option | GRANT SELECT ON incidents TO {role} WITH GRANT OPTION
    | unexpected privilege table incidents
owner's right revoked | REVOKE INSERT ON incidents FROM {owner} | missing privilege table incidents
function closed | REVOKE EXECUTE ON FUNCTION update_updated_at_column() FROM PUBLIC
    | missing privilege function update_updated_at_column()
type closed | REVOKE USAGE ON TYPE channel_type FROM PUBLIC | missing privilege type channel_type
schema closed | REVOKE USAGE ON SCHEMA public FROM PUBLIC | missing privilege schema public
default privileges | ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}
    | unexpected default privileges tables of {owner} in public
default privileges everywhere | ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC
    | unexpected default privileges functions of {owner}
"""


# The SQL of the second finding has to run before that of the first.
IN_ANOTHER_ORDER = ("unique index in place of the constraint",)


@pytest.fixture(scope="module")
def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(configuration_file()))


@pytest.fixture(scope="module")
def live(server: Server, template_at_head: Database) -> Database:
    return server.create_database(template_at_head, keep=True)


@pytest.fixture(scope="module")
def expected(live: Database, script: ScriptDirectory) -> Iterator[Shadow]:
    """The expected schema, kept while the tests of this file run: each undoes what it does to it."""
    with (
        contextlib.closing(connect(live.dsn)) as own,
        shadow.build(own, shadow.from_revisions(script, script.get_current_head())) as built,
    ):
        yield built


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases(CHANGES)])
def test_a_change_is_found_and_nothing_else(
    server: Server, expected: Shadow, changed: Connection, case: Case
) -> None:
    names = {"owner": changed.info.user}
    if "{role}" in case.sql:
        names["role"] = server.create_role().name
    with changed.cursor() as cursor:
        for statement in statements(case.sql.format_map(names)):
            try:
                cursor.execute(statement)
            except psycopg2.errors.FeatureNotSupported as error:
                pytest.skip(f"not on this server: {error.diag.message_primary}")
    with expected.undone():
        findings = root_causes.trace(expected, catalog.read(changed)).findings

    assert sorted(f"{f.change} {f.kind} {f.object}" for f in findings) == sorted(
        finding.format_map(names) for finding in case.findings
    )
    for finding in findings:
        assert finding.meaning.endswith("."), "it is not explained in a sentence"
        assert finding.expected is not None or finding.change == "unexpected"
        assert finding.actual is not None or finding.change == "missing"
        assert not re.search(r"DROP (TABLE|COLUMN|SCHEMA)|TRUNCATE|DELETE FROM", finding.sql or "")
    if all(finding.sql for finding in findings) and case.name not in IN_ANOTHER_ORDER:
        # A column cannot be put back in its place.
        assert left_after(expected, changed, findings) <= {"column order"}
