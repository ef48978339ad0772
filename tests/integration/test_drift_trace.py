"""Does a check leave no trace, stop nobody, and keep what it builds within the shadow?"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg2
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from guvnor.database import Database as Live
from guvnor.postgres import connect, scalar
from guvnor.revisions import sql_revisions
from guvnor.revisions.files import configuration_file
from guvnor.schema import drift, escapes, reading, shadow
from guvnor.schema.shadow import Shadow
from guvnor.schema.shadow_errors import (
    ShadowBusyError,
    ShadowError,
    ShadowEscapeError,
    ShadowUnavailableError,
)
from tests.support.observe import wait_for, waiting_for_lock
from tests.support.server import Database, Role, Server

CATALOGS = (
    "pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_trigger", "pg_proc", "pg_type",
    "pg_enum", "pg_namespace", "pg_extension", "pg_default_acl", "pg_policy", "pg_rewrite", "pg_sequence",
    "pg_statistic_ext", "pg_event_trigger", "pg_publication", "pg_cast", "pg_operator",
)  # fmt: skip

BUILD_AND_WAIT = """
import sys, time
from alembic.config import Config
from alembic.script import ScriptDirectory
from guvnor.postgres import connect
from guvnor.schema import shadow
script = ScriptDirectory.from_config(Config(sys.argv[2]))
with shadow.build(connect(sys.argv[1]), shadow.from_revisions(script, "002")) as built:
    built.snapshot()
    print("built", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(configuration_file()))


def fingerprint(database: Database) -> list[tuple[object, ...]]:
    """Everything that a check could leave behind: rows of the catalogs, values of sequences, locks."""
    rows = [
        (
            catalog,
            *database.execute(
                # But what VACUUM and ANALYZE write at any time.
                f"""
            SELECT count(*), md5(string_agg(r, '|' ORDER BY r))
            FROM {catalog} AS c CROSS JOIN LATERAL (VALUES ((to_jsonb(c) - ARRAY[
                'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid'
            ])::text)) AS v (r)
            """
            )[0],
        )
        for catalog in CATALOGS
        for row in database.execute(
            # But what VACUUM and ANALYZE write at any time.
            f"""
            SELECT count(*), md5(string_agg(r, '|' ORDER BY r))
            FROM {catalog} AS c CROSS JOIN LATERAL (VALUES ((to_jsonb(c) - ARRAY[
                'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid'
            ])::text)) AS v (r)
            """
        )
    ]
    rows += database.execute("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
    rows += database.execute(
        """
        SELECT l.locktype, l.relation::regclass::text, l.mode
        FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()
          AND a.backend_type = 'client backend'
        ORDER BY 1, 2, 3
        """
    )
    return rows


def test_nothing_is_left(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute(
        "CREATE SEQUENCE extra; SELECT nextval('extra'); ALTER TABLE incidents ALTER title TYPE text"
    )
    before = fingerprint(migrated)
    assert len(drift.check(Live(migrated.dsn), script).findings) == 2
    assert fingerprint(migrated) == before


@pytest.mark.parametrize("revision", [None, "001", "base"])
def test_without_alembic_the_same_is_found_and_nothing_is_left(
    migrated: Database, script: ScriptDirectory, revision: str | None
) -> None:
    migrated.execute("ALTER TABLE incidents ALTER title TYPE text; DROP INDEX idx_events_type")
    read = sql_revisions.read(configuration_file())
    before = fingerprint(migrated)
    findings = drift.check(Live(migrated.dsn), read, revision=revision).findings
    assert fingerprint(migrated) == before
    assert findings == drift.check(Live(migrated.dsn), script, revision=revision).findings
    assert len(findings) >= 2


def test_others_go_on_while_the_shadow_stands(migrated: Database, script: ScriptDirectory) -> None:
    with (
        contextlib.closing(connect(migrated.dsn)) as own,
        shadow.build(own, shadow.from_revisions(script, "002")) as built,
    ):
        built.snapshot()
        migrated.execute(
            """
            SET lock_timeout = '1ms';
            INSERT INTO incidents (title, severity, team_id) VALUES ('t', 'high', 'a');
            UPDATE incidents SET title = 'u';
            ALTER TABLE incidents ADD COLUMN extra text;
            DROP TABLE audit_logs;
            CREATE TABLE audit_logs (id integer)
            """
        )


def test_nothing_is_left_when_the_process_is_killed(migrated: Database) -> None:
    before = fingerprint(migrated)
    with subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_WAIT, migrated.dsn, str(configuration_file())],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], 60)
        assert readable
        assert process.stdout.readline() == b"built\n"
        os.kill(process.pid, signal.SIGKILL)
    wait_until_alone(migrated)
    assert fingerprint(migrated) == before


def test_nothing_is_left_when_the_server_ends_the_session(
    migrated: Database, script: ScriptDirectory
) -> None:
    before = fingerprint(migrated)

    def interrupted(built: Shadow) -> None:
        shadow.from_revisions(script, "002")(built)
        migrated.execute("SELECT pg_terminate_backend(%s)", [built.driver.info.backend_pid])
        built.execute("SELECT 1")

    with (
        contextlib.closing(connect(migrated.dsn)) as own,
        pytest.raises(ShadowError),
        shadow.build(own, interrupted),
    ):
        pass
    wait_until_alone(migrated)
    assert fingerprint(migrated) == before


def statements(*all_of_them: str) -> Callable[[Shadow], None]:
    def make(built: Shadow) -> None:
        for statement in all_of_them:
            built.execute(statement)

    return make


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("ALTER TABLE public.incidents ADD COLUMN extra text", "took ACCESS EXCLUSIVE on incidents"),
        ("DROP TABLE IF EXISTS audit_logs", "took ACCESS EXCLUSIVE on a table"),
        ("CREATE INDEX ON incidents (title)", "took SHARE on incidents"),
        ("INSERT INTO team_preferences (team_id) VALUES ('a')", "took ROW EXCLUSIVE on team_preferences"),
        ("COMMIT", "ended the transaction"),
        ("COMMIT; BEGIN", "ended the transaction"),
        ("ROLLBACK", "ended the transaction"),
        ("SET search_path = public", "changed the search_path"),
    ],
)
def test_a_statement_that_reaches_out_ends_the_build(migrated: Database, wrong: str, words: str) -> None:
    before = fingerprint(migrated)
    with contextlib.closing(connect(migrated.dsn)) as own:
        with (
            pytest.raises(ShadowEscapeError) as failure,
            shadow.build(own, statements("CREATE TABLE inside (id integer)", wrong)),
        ):
            pass
        assert words in failure.value.message
        assert wrong in failure.value.message
        assert "rolled back" in (failure.value.state or "")
        assert fingerprint(migrated) == before


def test_statements_are_run_as_they_are_written(migrated: Database) -> None:
    written = (
        "CREATE TABLE a (share text DEFAULT '100%'); -- for now",
        "CREATE TABLE b (c text DEFAULT '%s :d') /* the last one */;",
    )
    with (
        contextlib.closing(connect(migrated.dsn)) as own,
        shadow.build(own, statements(*written)) as built,
    ):
        columns = {item.identity: item.attributes["default"] for item in built.snapshot().of_kind("column")}
    assert columns == {"a.share": "'100%'::text", "b.c": "'%s :d'::text"}


def test_a_statement_that_reaches_out_is_noticed_before_the_next_one_runs(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escapes, "_CHEAP_LOOK", 60.0)  # on a busy machine a look can take long
    many = [f"CREATE TABLE t{number} (id integer)" for number in range(40)]
    for count in (15, 16, 40):
        with (
            contextlib.closing(connect(migrated.dsn)) as own,
            pytest.raises(ShadowEscapeError, match="ACCESS EXCLUSIVE on incidents"),
            shadow.build(own, statements(*many[:count], "LOCK TABLE incidents", "SELECT 1/0")),
        ):
            pass


def test_what_names_a_live_table_is_stopped_soon_and_nothing_after_it(migrated: Database) -> None:
    slow = "SELECT pg_sleep(0.3)::text AS slow"
    with (
        contextlib.closing(connect(migrated.dsn)) as own,
        shadow.build(
            own,
            statements(
                "CREATE TABLE copy AS TABLE incidents",
                slow,
                f"CREATE MATERIALIZED VIEW incidents AS {slow}",
                f"CREATE TABLE other AS TABLE incidents; {slow}",
            ),
        ),
    ):
        pass
    with contextlib.closing(connect(migrated.dsn)) as own:
        with shadow.build(own, statements("CREATE TABLE copy AS TABLE incidents")):
            assert scalar(own, "SHOW statement_timeout") == "0"
        with (
            pytest.raises(ShadowEscapeError, match="stopped after 100ms"),
            shadow.build(own, statements("SELECT count(*), pg_sleep(9) FROM incidents")),
        ):
            pass


def test_a_revision_that_waits_for_a_live_table_gives_up_soon(migrated: Database) -> None:
    with contextlib.closing(psycopg2.connect(migrated.dsn)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE incidents IN ROW EXCLUSIVE MODE")
        began = time.monotonic()
        with (
            contextlib.closing(connect(migrated.dsn)) as own,
            pytest.raises(ShadowBusyError, match="lock") as failure,
            shadow.build(own, statements("ALTER TABLE public.incidents ADD COLUMN extra text")),
        ):
            pass
        assert failure.value.exit_code == 7
        assert time.monotonic() - began < 5


def test_a_revision_that_fails_is_named(migrated: Database, script: ScriptDirectory) -> None:
    def fail(built: Shadow) -> None:
        shadow.from_revisions(script, "001")(built)
        built.execute("SELECT 1/0")

    with (
        contextlib.closing(connect(migrated.dsn)) as own,
        pytest.raises(ShadowError, match="revision 001 failed: division by zero"),
        shadow.build(own, fail),
    ):
        pass


def test_event_triggers_of_others_do_not_fire(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute(
        """
        CREATE SEQUENCE fired;
        CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM nextval(''public.fired''); END';
        CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch()
        """
    )
    before = fingerprint(migrated)
    titles = [finding.title for finding in drift.check(Live(migrated.dsn), script).findings]
    migrated.execute("DROP EVENT TRIGGER watching")
    assert "event trigger watching is unexpected" in titles
    assert [row for row in before if row[0] == "fired"] == migrated.execute(
        "SELECT sequencename, last_value FROM pg_sequences WHERE sequencename = 'fired'"
    )


AUDIT = """
    CREATE TABLE ddl_log (at timestamptz, command text);
    CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN {body}; END $$;
    CREATE EVENT TRIGGER auditing ON ddl_command_end EXECUTE FUNCTION audit()
"""


@pytest.mark.parametrize(
    "body", ["INSERT INTO public.ddl_log VALUES (now(), tg_tag)", "RAISE EXCEPTION 'no DDL on Fridays'"]
)
def test_a_role_that_may_not_suppress_event_triggers_is_told_of_them(
    server: Server, migrated: Database, script: ScriptDirectory, body: str
) -> None:
    role = server.create_role()
    migrated.execute(f'GRANT CREATE ON DATABASE "{migrated.name}" TO "{role.name}"')
    migrated.execute(f'GRANT SELECT ON alembic_version, schema_migrations TO "{role.name}"')
    migrated.execute(AUDIT.format(body=body))
    before = migrated.execute("SELECT count(*) FROM ddl_log")
    with pytest.raises(ShadowUnavailableError, match=r"auditing \(function audit\)") as raised:
        drift.check(Live(migrated.dsn_with(role)), script)
    assert "GRANT SET ON PARAMETER session_replication_role" in (raised.value.next_step or "")
    if server.major >= 15:
        migrated.execute(f'GRANT SET ON PARAMETER session_replication_role TO "{role.name}"')
        try:
            report = drift.check(Live(migrated.dsn_with(role)), script)
        finally:
            migrated.execute(f'REVOKE SET ON PARAMETER session_replication_role FROM "{role.name}"')
        assert "event trigger auditing is unexpected" in [finding.title for finding in report.findings]
    migrated.execute("DROP EVENT TRIGGER auditing")
    assert migrated.execute("SELECT count(*) FROM ddl_log") == before


def test_an_event_trigger_that_always_fires_is_named(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute(AUDIT.format(body="INSERT INTO public.ddl_log VALUES (now(), tg_tag)"))
    migrated.execute("ALTER EVENT TRIGGER auditing ENABLE ALWAYS")
    with pytest.raises(ShadowUnavailableError, match="auditing") as raised:
        drift.check(Live(migrated.dsn), script)
    assert "GRANT" not in (raised.value.next_step or "")
    migrated.execute("DROP EVENT TRIGGER auditing")


def test_without_room_for_the_locks_it_says_so(
    migrated: Database, script: ScriptDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(migrated)
    monkeypatch.setattr(shadow, "_LOCKS_SHARE", 0.001)
    with pytest.raises(ShadowUnavailableError, match="locks") as failure:
        drift.check(Live(migrated.dsn), script)
    assert "max_locks_per_transaction" in (failure.value.next_step or "")
    assert fingerprint(migrated) == before


def test_a_role_without_the_right_to_see_the_version_is_told(
    server: Server, migrated: Database, script: ScriptDirectory
) -> None:
    role: Role = server.create_role()
    with pytest.raises(reading.LiveSchemaError, match="permission denied") as failure:
        drift.check(Live(migrated.dsn_with(role)), script)
    assert "GRANT SELECT" in (failure.value.next_step or "")


def test_a_migration_in_between_is_noticed(migrated: Database) -> None:
    migrated.execute("CREATE VIEW doomed AS SELECT id FROM incidents")
    with contextlib.closing(psycopg2.connect(migrated.dsn)) as other, other.cursor() as cursor:
        cursor.execute("DROP VIEW doomed; UPDATE alembic_version SET version_num = '001'")
        with (
            reading.live_reader(Live(migrated.dsn)) as found,
            contextlib.closing(connect(migrated.dsn)) as observer,
        ):
            assert found.recorded == "002"
            wait_for("the read to come to the view", lambda: waiting_for_lock(observer, "doomed"))
            other.commit()
            with pytest.raises(reading.MigratedMeanwhileError) as failure:
                found.schema()
    assert failure.value.exit_code == 7


def test_a_read_that_is_not_waited_for_ends_at_once(migrated: Database) -> None:
    migrated.execute("CREATE VIEW locked AS SELECT id FROM incidents")
    with contextlib.closing(psycopg2.connect(migrated.dsn)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        with contextlib.closing(connect(migrated.dsn)) as observer:
            with reading.live_reader(Live(migrated.dsn)):
                wait_for("the read to come to the view", lambda: waiting_for_lock(observer, "locked"))
            assert not waiting_for_lock(observer, "locked")


def test_a_version_without_a_file_is_refused(migrated: Database, script: ScriptDirectory) -> None:
    migrated.execute("UPDATE alembic_version SET version_num = '999'")
    for revisions in (script, sql_revisions.read(configuration_file())):
        with pytest.raises(reading.LiveSchemaError, match="999"):
            drift.check(Live(migrated.dsn), revisions)


def wait_until_alone(database: Database) -> None:
    """Wait until the server has noticed that the other sessions are gone."""
    deadline = time.monotonic() + 30
    while database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
