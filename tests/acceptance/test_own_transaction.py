"""A revision whose SQL ends its own transaction is refused or found out; the state that is named is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Result
from tests.support.expect import AT_HEAD, ends, events, succeeds, tables, versions
from tests.support.forked import ForkedCommand
from tests.support.observe import wait_for
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.server import Database, run

BACK = "op.execute('SELECT 1')"  # every revision has a way back

HALF_DONE = (["002"], [(3, True)])
# The driver's own cursor: SQLAlchemy, which the tool listens to, sees nothing of what it runs.
UNSEEN = "run = op.get_bind().connection.cursor().execute\n"


def up(guvnor: ForkedCommand, database: Database, project: Project, *options: str) -> Result:
    return guvnor("migrate", "up", *options, database=database, cwd=project.directory)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("COMMIT", "COMMIT"),
        ("COMMIT AND CHAIN", "COMMIT AND CHAIN"),
        ("ROLLBACK; BEGIN", "ROLLBACK"),
        ("CREATE TABLE first (); COMMIT; SELECT 1/0", "COMMIT"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
    ],
)
def test_what_can_be_read_beforehand_is_refused(
    guvnor: ForkedCommand, migrated: Database, project: Project, text: str, words: str
) -> None:
    path = project.add_revision(
        f"op.execute('CREATE TABLE before ()')\nop.execute({text!r})", downgrade=BACK, python=True
    )
    expected = (f"Revision 003 would end its own transaction going up, with {words}.", str(path), "unchanged")
    before = events(migrated)
    ends(up(guvnor, migrated, project), 3, *expected)
    ends(guvnor("migrate", "preflight", database=migrated, cwd=project.directory), 3, *expected)
    assert versions(migrated) == AT_HEAD
    assert events(migrated) == before


def test_a_way_back_that_ends_its_transaction_is_refused_when_it_is_taken(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision("CREATE TABLE teams ()", "DROP TABLE teams; COMMIT")
    succeeds(up(guvnor, migrated, project))
    ends(guvnor("migrate", "down", database=migrated, cwd=project.directory), 3, "going down, with COMMIT")
    assert "teams" in tables(migrated)


def test_a_revision_that_is_applied_may_say_what_it_likes(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    path = project.add_revision("SELECT 1")
    succeeds(up(guvnor, migrated, project))
    path.write_text(path.read_text().replace("op.execute('SELECT 1')", "op.execute('COMMIT')", 1))
    succeeds(guvnor("migrate", "preflight", database=migrated, cwd=project.directory))
    project.add_revision("SELECT 2")
    succeeds(up(guvnor, migrated, project, "--no-verify", "--accept-edited", "3"))


def test_what_only_the_run_shows_is_refused_before_it_runs(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(
        "number = op.get_bind().exec_driver_sql('SELECT 1').scalar()\n"
        "op.execute('CREATE TABLE first ()')\n"
        "op.execute(f'COMMIT; SELECT {number}')",
        downgrade=BACK,
        python=True,
    )
    ends(
        up(guvnor, migrated, project), 1, "would end its own transaction going up, with COMMIT", "rolled back"
    )
    assert versions(migrated) == AT_HEAD
    assert "first" not in tables(migrated)


def add_revision_that_runs(project: Project, text: str) -> None:
    """Add a revision that runs SQL unseen between two statements that are seen."""
    project.add_revision(
        UNSEEN + f"op.execute('CREATE TABLE first ()')\nrun({text!r})\nop.execute('CREATE TABLE second ()')",
        downgrade=BACK,
        python=True,
    )


@pytest.mark.parametrize(
    "text",
    ["COMMIT", "COMMIT AND CHAIN", "COMMIT; SELECT 1/0", "COMMIT; BEGIN; SELECT 1/0"],
)
def test_a_commit_that_nobody_saw_is_found_and_marked(
    guvnor: ForkedCommand, migrated: Database, project: Project, text: str
) -> None:
    add_revision_that_runs(project, text)
    result = ends(up(guvnor, migrated, project), 1, "half done", "guvnor migrate repair")
    assert "rolled back" not in result.err
    assert versions(migrated) == HALF_DONE
    assert "first" in tables(migrated)
    assert "second" not in tables(migrated)
    ends(up(guvnor, migrated, project), 5, "dirty")


def test_a_commit_as_the_last_statement_is_found(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(
        UNSEEN + "op.execute('CREATE TABLE first ()')\nrun('COMMIT AND CHAIN')", downgrade=BACK, python=True
    )
    ends(up(guvnor, migrated, project), 1, "ended its transaction by itself", "CREATE TABLE first", "repair")
    assert versions(migrated) == HALF_DONE


@pytest.mark.parametrize("text", ["ROLLBACK; BEGIN", "ROLLBACK AND CHAIN", "ROLLBACK"])
def test_a_rollback_that_nobody_saw_is_found(
    guvnor: ForkedCommand, migrated: Database, project: Project, text: str
) -> None:
    add_revision_that_runs(project, text)
    result = ends(up(guvnor, migrated, project), 1, "ended its transaction by itself", "It is not known")
    assert "Applied" not in result.out
    assert versions(migrated) == AT_HEAD
    assert {"first", "second"}.isdisjoint(tables(migrated))


def test_where_nothing_shows_what_was_committed_nothing_is_claimed(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(
        UNSEEN + "run('ROLLBACK; CREATE TABLE hidden (); COMMIT; SELECT 1/0')", downgrade=BACK, python=True
    )
    result = ends(up(guvnor, migrated, project), 1, "division by zero", "State: It is not known")
    assert "as it was before" not in result.err
    assert "hidden" in tables(migrated)


def test_a_procedure_that_commits_is_refused_by_the_server(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    migrated.execute("CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
    project.add_revision(
        "op.execute('CREATE TABLE first ()')\nop.execute('CALL commits()')", downgrade=BACK, python=True
    )
    ends(up(guvnor, migrated, project, "--no-verify"), 1, "2D000", "as it was before it (version 2)")
    assert versions(migrated) == AT_HEAD
    assert "first" not in tables(migrated)


def test_what_is_committed_is_not_tried_again(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    reader = migrated.connect()
    run(reader, "BEGIN; SELECT count(*) FROM incidents")
    project.add_revision(
        UNSEEN + "run(\"COMMIT; SET lock_timeout = '50ms'; LOCK TABLE incidents\")",
        downgrade=BACK,
        python=True,
    )
    result = ends(up(guvnor, migrated, project), 1, "55P03", "half done")
    assert "trying again" not in result.err
    assert versions(migrated) == HALF_DONE


def test_savepoints_are_the_business_of_the_revision(
    guvnor: ForkedCommand, migrated: Database, project: Project
) -> None:
    project.add_revision(
        "op.execute('SAVEPOINT a')\nop.execute('CREATE TABLE first ()')\nop.execute('ROLLBACK TO a')\n"
        "with op.get_bind().begin_nested():\n    op.execute('CREATE TABLE second ()')",
        downgrade=BACK,
        python=True,
    )
    succeeds(up(guvnor, migrated, project, "--no-verify"), "Applied 003")
    assert "second" in tables(migrated)


def test_a_connection_that_is_lost_with_the_commit_leaves_no_doubt(
    guvnor: ForkedCommand, at_version_1: Database, tmp_path: Path
) -> None:
    with Proxy(at_version_1, lambda message: message.text == "COMMIT", sent=True) as proxy:
        process = guvnor.start("migrate", "up", "--no-verify", database=proxy.dsn)
        proxy.wait_until_stopped()
        # The first commit is that before the online part.
        wait_for("the commit", lambda: versions(at_version_1)[1] == [(2, True)])
        proxy.cut()
        proxy.go_on()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1, err
    assert "half done" in err
    assert "guvnor migrate up" in err
    apart = tmp_path / "project"  # no folder above that of the command
    apart.mkdir()
    project = Project(apart)
    project.add_revision("CREATE TABLE teams ()")
    succeeds(guvnor("migrate", "up", database=at_version_1))
    with Proxy(at_version_1, lambda message: message.text == "COMMIT", sent=True) as proxy:
        process = guvnor.start("migrate", "up", "--no-verify", database=proxy.dsn, cwd=apart)
        proxy.wait_until_stopped()
        wait_for("the commit", lambda: versions(at_version_1)[0] == ["003"])
        proxy.cut()
        proxy.go_on()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1, err
    assert "The revision had just been finished (version 3)." in err
    assert "guvnor migrate status" in err
