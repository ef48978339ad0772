"""While golang-migrate is at work: is that told apart from what it left, and never undone or done twice?"""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from guvnor.migrate.locks import RUN_LOCK, golang_keys
from tests.support.expect import AT_1, AT_HEAD, ends, events, succeeds, tables, versions
from tests.support.golang import GATE, WAITING, Golang, Imitation, our_statements
from tests.support.observe import wait_for
from tests.support.proxy import Proxy
from tests.support.server import run

UP, DOWN = 0, 1
AT_WORK = "golang-migrate is at work: pid {}"


def until_it_waits(process: Any) -> None:
    """Wait until a command says that it waits for golang-migrate."""
    assert any("waiting for golang-migrate" in line for line in process.stderr)


def ended(process: subprocess.Popen[str], code: int, *texts: str) -> str:
    """Wait for the end of a command, and expect an exit code and some texts."""
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}{err}"
    for text in texts:
        assert text in out + err, f"{text!r} is missing in\n{out}{err}"
    return out + err


@pytest.fixture(params=[0, 1], ids=["the application's", "its own command's"])
def at_work(request, at_version_1):
    """golang-migrate, in the middle of its file for version 2, under either of its two locks."""
    other = Imitation(at_version_1, request.param)
    other.write(2, dirty=True)
    return other


# -- it is at work, and says so --


def test_it_is_not_taken_for_one_that_died(at_version_1, at_work, guvnor):
    words = AT_WORK.format(at_work.pid)
    shown = succeeds(guvnor("migrate", "status", database=at_version_1), f"Running: {words}")
    assert "Version 2 (a migration is at work)" in shown.out
    assert "DIRTY" not in shown.out
    assert "WARNING" not in shown.out
    found = json.loads(
        ends(guvnor("migrate", "status", "--json", "--exit-code", database=at_version_1), 8).out
    )
    assert f"pid {at_work.pid}" in found["running"]
    succeeds(guvnor("migrate", "preflight", database=at_version_1), words)
    for command in (
        ["repair"],
        ["repair", "--back"],
        ["repair", "--as-is"],
        ["plan"],
        ["deploy", "--dry-run"],
    ):
        ends(guvnor("migrate", *command, database=at_version_1), 5, words, "its work in progress")
    ends(guvnor("migrate", "up", "--lock-wait", "200ms", database=at_version_1), 7, words, "still at work")
    assert versions(at_version_1) == (["001"], [(2, True)])


def test_one_that_died_is_still_dirty(at_version_1, at_work, guvnor):
    at_work.end()
    ends(guvnor("migrate", "up", database=at_version_1), 5, "golang-migrate left it", "guvnor migrate repair")


def test_one_that_begins_while_we_look_is_not_taken_for_one_that_died(at_version_1, guvnor):
    """It takes its lock and writes its row between our look at its lock and our look at its row."""
    with Proxy(
        at_version_1, lambda message: message.text.startswith("BEGIN ISOLATION LEVEL REPEATABLE")
    ) as proxy:
        process = guvnor.start("migrate", "status", database=proxy.dsn)
        assert proxy.wait_until_stopped() is not None, process.communicate()
        other = Imitation(at_version_1)
        other.write(2, dirty=True)
        proxy.go_on()
        ended(process, 0, "Version 2 (a migration is at work)")


# -- what it does while we wait is adopted, or left to a person --


@pytest.mark.parametrize("command", ["guvnor", "alembic", "deploy"])
def test_what_it_did_of_our_plan_is_adopted(at_version_1, at_work, guvnor, alembic, command):
    if command == "alembic":
        process = alembic.start("upgrade", "head", database=at_version_1)
    else:
        process = guvnor.start("migrate", "deploy" if command == "deploy" else "up", database=at_version_1)
    until_it_waits(process)
    at_work.run(our_statements()[1][UP])
    at_work.write(2)
    at_work.end()
    ended(process, 0, "adopted what golang-migrate did while this run was waiting")
    assert versions(at_version_1) == AT_HEAD
    assert events(at_version_1)[-2:] == [("started", "adopt", "002"), ("succeeded", "adopt", "002")]
    ((note,),) = at_version_1.execute(
        "SELECT note FROM guvnor_migration_history WHERE event = 'succeeded' AND direction = 'adopt'"
    )
    assert "golang-migrate did it while a run was waiting" in note
    succeeds(guvnor("schema", "check", database=at_version_1))


@pytest.mark.parametrize(("command", "code"), [("up", 0), ("preflight", 5)])
def test_what_it_did_during_our_checks_is_adopted_too(at_version_1, guvnor, command, code):
    """It begins after our first look at the state, and ends before the last one."""
    with Proxy(at_version_1, lambda message: "has_schema_privilege" in message.text) as proxy:
        process = guvnor.start("migrate", command, database=proxy.dsn)
        assert proxy.wait_until_stopped()
        other = Imitation(at_version_1)
        other.run(our_statements()[1][UP])
        other.write(2)
        other.end()
        proxy.go_on()
        ended(process, code, "No change: version 2" if code == 0 else "The version tables disagree")
    assert versions(at_version_1) == (AT_HEAD if code == 0 else (["001"], [(2, False)]))


def test_what_remains_of_the_plan_is_applied(database, project, guvnor):
    """It comes first on an empty database, with files that end at version 2."""
    project.add_revision("CREATE TABLE t3 ()", "DROP TABLE t3")
    other = Imitation(database)
    process = guvnor.start("migrate", "up", database=database, cwd=project.directory)
    until_it_waits(process)
    for number, statements in enumerate(our_statements(), 1):
        other.write(number, dirty=True)
        other.run(statements[UP])
        other.write(number)
    other.end()
    ended(process, 0, "Applied 003", "Migration completed: version 3")
    assert versions(database) == (["003"], [(3, False)])
    assert "t3" in tables(database)


@pytest.mark.parametrize(
    ("command", "sql", "row", "words"),
    [
        ("up", "SELECT 1", (2, False), "the schema is not that of revision 002"),
        ("up", "SELECT 1", (3, True), "dirty state at version 3"),
        ("up", "SELECT 1", (2, True), "golang-migrate left it"),
        ("up", our_statements()[0][DOWN], (None, False), "The version tables disagree"),
        ("down", our_statements()[0][DOWN], (None, False), "The version tables disagree"),
    ],
    ids=["another schema", "dirty past our files", "dirty", "backwards", "for a rollback"],
)
def test_anything_else_needs_a_decision(at_version_1, guvnor, command, sql, row, words):
    other = Imitation(at_version_1)
    before = events(at_version_1)
    process = guvnor.start("migrate", command, database=at_version_1)
    until_it_waits(process)
    other.run(sql)
    other.write(row[0], dirty=row[1])
    left = tables(at_version_1)
    other.end()
    ended(process, 5, words)
    assert versions(at_version_1) == (["001"], [row] if row[0] else [])
    assert (events(at_version_1), tables(at_version_1)) == (before, left)


def test_what_it_did_past_our_target_needs_a_decision(database, guvnor):
    other = Imitation(database)
    process = guvnor.start("migrate", "up", "--to", "1", database=database)
    until_it_waits(process)
    for up, _ in our_statements():
        other.run(up)
    other.write(2)
    other.end()
    ended(process, 5, "golang-migrate brought this database to version 2", "guvnor migrate adopt")


def test_what_it_did_past_our_files_is_left_alone(at_version_1, guvnor):
    other = Imitation(at_version_1)
    process = guvnor.start("migrate", "up", database=at_version_1)
    until_it_waits(process)
    other.write(3)
    other.end()
    ended(process, 0, "at version 3, ahead of the migration files (newest: 002)")
    assert versions(at_version_1) == (["001"], [(3, False)])


# -- a repair, a rollback or a force that was decided on before it ended --


@pytest.mark.parametrize("way", ["--back", "--forward", "--as-is"])
def test_a_repair_does_nothing_to_what_it_has_finished_meanwhile(at_version_1, guvnor, way):
    """It died once; it is started again just after our look, and ends cleanly at 2 while we wait."""
    at_version_1.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (2, true)")
    before = events(at_version_1)
    with Proxy(at_version_1, lambda message: f"pg_try_advisory_lock({RUN_LOCK})" in message.text) as proxy:
        process = guvnor.start("migrate", "repair", way, database=proxy.dsn)
        assert proxy.wait_until_stopped()
        other = Imitation(at_version_1)
        proxy.go_on()
        until_it_waits(process)
        other.run(our_statements()[1][UP])
        other.write(2)
        other.end()
        ended(process, 5, "moved the version of the database while this command was waiting")
    assert "audit_logs" in tables(at_version_1)
    assert (versions(at_version_1), events(at_version_1)) == ((["001"], [(2, False)]), before)


def test_a_repair_whose_choice_is_gone_says_so(at_version_1, guvnor):
    """It ends between the choices that are shown and the pre-flight checks."""
    at_version_1.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (2, true)")
    with Proxy(at_version_1, lambda message: message.kind == "startup" and message.session > 0) as proxy:
        process = guvnor.start("migrate", "repair", "--forward", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        at_version_1.execute("TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (2, false)")
        proxy.go_on()
        shown = ended(process, 5, "moved the version of the database")
    assert "No change" not in shown


def test_the_backup_is_decided_after_the_wait(migrated, guvnor, directory):
    """The application writes while we wait; before that, the rollback would have lost nothing."""
    other = Imitation(migrated)
    process = guvnor.start("migrate", "down", "--backup", directory, database=migrated)
    until_it_waits(process)
    migrated.execute(
        "INSERT INTO audit_logs (entity_type, entity_id, action, actor) VALUES ('incident', '1', 'a', 'b')"
    )
    other.end()
    ended(process, 0, "Backup taken")
    assert len(list(directory.glob("*-dropped.sql.gz"))) == 1
    assert versions(migrated) == AT_1


def test_a_force_is_refused_when_it_has_moved_meanwhile(at_version_1, at_work, guvnor):
    process = guvnor.start("migrate", "force", "1", database=at_version_1)
    until_it_waits(process)
    at_work.run(our_statements()[1][UP])
    at_work.write(2)
    at_work.end()
    ended(process, 5, "moved the version", "from dirty on the way to version 2 to 1 (Alembic) and 2")
    assert versions(at_version_1) == (["001"], [(2, False)])


def test_adopt_waits_for_it(at_version_1, at_work, guvnor):
    process = guvnor.start("migrate", "adopt", database=at_version_1)
    until_it_waits(process)
    at_work.run(our_statements()[1][UP])
    at_work.write(2)
    at_work.end()
    ended(process, 0, "Adopted at version 2")


def test_its_locks_are_held_from_the_look_at_the_state_on(at_version_1, guvnor):
    """Also between the look and the first statement: the backup may take long there."""
    with Proxy(at_version_1, lambda message: message.text.startswith("INSERT INTO public.guv")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        other = at_version_1.connect()
        for key in golang_keys(at_version_1.name):
            assert run(other, "SELECT pg_try_advisory_lock(%s)", [key]) == [(False,)]
        proxy.go_on()
        ended(process, 0)


# -- it waits for our transaction --


@pytest.mark.parametrize("rows", [0, 5], ids=["empty", "a few rows"])
def test_on_a_small_table_it_does_not_wake_into_a_dirty_row(at_version_1, guvnor, rows):
    """The index of 002 is built in the transaction, which keeps everybody from incidents anyway."""
    at_version_1.execute("TRUNCATE incidents CASCADE")  # gives back its blocks
    at_version_1.execute(
        "INSERT INTO incidents (title, status, severity, team_id) "
        f"SELECT 'a', 'triggered', 'low', 'b' FROM generate_series(1, {rows})"
    )
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        process = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        seen = at_version_1.connect()
        with ThreadPoolExecutor(1) as thread:
            # It looks at the version as soon as it has its lock.
            waiting = thread.submit(
                run, seen, "SELECT pg_advisory_lock(%s)", [golang_keys(at_version_1.name)[0]]
            )
            wait_for("it to wait", lambda: at_version_1.execute(WAITING))
            proxy.go_on()
            waiting.result(timeout=30)
        assert run(seen, "SELECT version, dirty FROM schema_migrations") == [(2, False)]
        ended(process, 0)
        assert not [message for message in proxy.messages if "CONCURRENTLY" in message.text]
    assert at_version_1.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_incidents_escalation_policy'::regclass"
    ) == [(True,)]
    assert at_version_1.execute("SELECT count(*) FROM guvnor_migration_history WHERE event = 'online'") == [
        (0,)
    ]
    succeeds(guvnor("schema", "check", database=at_version_1))


# -- the real one --


def gated(database, golang, *arguments):
    """Start golang-migrate, which stops in its file for version 2; return how to let it go on, too."""
    golang.use_our_statements(gated=[2])
    gate = database.connect()
    run(gate, "SELECT pg_advisory_lock(%s)", [GATE])
    process = golang.start(database, *arguments)
    wait_for("golang-migrate at its gate", lambda: database.execute(WAITING))
    return process, gate.close


def test_the_real_one_is_adopted(at_version_1, guvnor, golang: Golang):
    theirs, go_on = gated(at_version_1, golang, "up")
    ours = guvnor.start("migrate", "up", database=at_version_1)
    until_it_waits(ours)
    go_on()
    theirs.communicate(timeout=30)
    ended(ours, 0, "adopted what golang-migrate did", "No change: version 2")
    assert versions(at_version_1) == AT_HEAD
    assert golang(at_version_1, "up") == "no change"


def test_the_real_one_is_not_rolled_back_by_a_repair(at_version_1, guvnor, golang: Golang):
    theirs, go_on = gated(at_version_1, golang, "up")
    assert versions(at_version_1) == (["001"], [(2, True)])
    ends(guvnor("migrate", "repair", "--back", database=at_version_1), 5, "golang-migrate is at work")
    go_on()
    theirs.communicate(timeout=30)
    assert "audit_logs" in tables(at_version_1)
    ends(guvnor("migrate", "repair", "--back", database=at_version_1), 5, "The version tables disagree")
    succeeds(guvnor("migrate", "adopt", database=at_version_1), "Adopted at version 2")


def test_the_real_one_waits_for_ours_and_finds_nothing_to_do(at_version_1, guvnor, golang: Golang):
    at_version_1.execute("TRUNCATE incidents CASCADE")
    golang.use_our_statements()
    with Proxy(at_version_1, lambda message: message.text.startswith("CREATE TABLE")) as proxy:
        ours = guvnor.start("migrate", "up", database=proxy.dsn)
        assert proxy.wait_until_stopped()
        theirs = golang.start(at_version_1, "up")
        wait_for("golang-migrate to wait", lambda: at_version_1.execute(WAITING))
        proxy.go_on()
        told, _ = theirs.communicate(timeout=30)
        ended(ours, 0)
    assert told.strip() == "no change"


def test_the_real_one_on_an_empty_database(database, guvnor, golang: Golang):
    theirs, go_on = gated(database, golang, "up")
    ours = guvnor.start("migrate", "up", database=database)
    until_it_waits(ours)
    go_on()
    theirs.communicate(timeout=30)
    ended(ours, 0, "adopted what golang-migrate did")
    assert versions(database) == AT_HEAD
