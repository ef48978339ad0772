"""Does the report of a branch say what a reviewer needs to know, and leave with the right code?"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guvnor.review import files
from guvnor.revisions import branch
from tests.support import reports
from tests.support.clone import Clone, good, two_heads
from tests.support.command import Command, Result, kill
from tests.support.expect import succeeds
from tests.support.forked import ForkedCommand
from tests.support.observe import wait_for
from tests.support.reports import report, review
from tests.support.server import Database, Server


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    (directory := tmp_path / "clone").mkdir()
    return Clone(directory)


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Server) -> Iterator[None]:
    yield
    assert (
        server.execute("SELECT datname FROM pg_database WHERE starts_with(datname, 'guvnor_review_')") == []
    )


def verdicts(result: Result) -> dict[str, tuple[str, str]]:
    """The checks: the sign in the table, and the sentence below it, by name."""
    rows = re.findall(r"^\| (\S+) \| ([A-Z][a-z ]+) \| (.*) \|$", result.out, re.MULTILINE)
    assert all(len(count) <= 40 for _, _, count in rows), "too wide for a comment"
    said = dict(re.findall(r"^(?:- )?\*\*([A-Z][a-z ]+)\.\*\* (.*)$", result.out, re.MULTILINE))
    return {name: (sign, said.get(name, "")) for sign, name, _ in rows}


def counts(result: Result) -> dict[str, str]:
    """The counts in the table of checks."""
    return dict(re.findall(r"^\| \S+ \| ([A-Z][a-z ]+) \| (.*) \|$", result.out, re.MULTILINE))


def signs(result: Result) -> dict[str, str]:
    return {name: sign for name, (sign, _) in verdicts(result).items()}


SLEEPS = """
    DO $$
    BEGIN
        IF starts_with(current_database(), 'guvnor_review_') THEN PERFORM pg_sleep(120); END IF;
    END
    $$
"""
ASLEEP = """
    SELECT datname FROM pg_stat_activity
    WHERE starts_with(datname, 'guvnor_review_') AND state = 'active' AND query LIKE '%sleep%'
"""
CHECKS = ["One line", "Models", "Round trip", "Lint", "Data", "Locks"]


# The four branches whose reports are shown


@pytest.fixture
def dsn(server: Server) -> str:
    return server.dsn


def test_a_good_branch(clone: Clone, dsn: str) -> None:
    result = report(clone, "good", dsn)
    assert result.code == 0, result.out + result.err
    assert signs(result) == dict.fromkeys(CHECKS, "✅")
    assert "## ✅ Migrations: all is well (1 new revision)" in result.out
    assert "- `+` column `incidents.priority`" in result.out
    assert "- `+` index `incidents.idx_incidents_priority`" in result.out
    assert (
        "**Data loss on the way back:** whatever is stored by then in column `incidents.priority`."
        in result.out
    )
    assert "CREATE INDEX CONCURRENTLY" in result.out
    assert "13 tables" in verdicts(result)["Round trip"][1]
    assert_current("good", result)


def test_a_dangerous_branch(clone: Clone, dsn: str) -> None:
    result = report(clone, "dangerous", dsn)
    assert result.code == 3, result.out + result.err
    found = verdicts(result)
    assert signs(result) == {
        "One line": "✅", "Models": "✅", "Round trip": "✅", "Lint": "❌", "Data": "⚠️", "Locks": "⚠️"
    }  # fmt: skip
    assert "column signals.payload" in found["Data"][1]
    assert found["Round trip"][1].endswith("came back, except for what was stored in column signals.payload.")
    assert "events is rewritten under ACCESS EXCLUSIVE" in found["Locks"][1]
    assert "incidents is read as a whole under SHARE" in found["Locks"][1]
    assert "**⚠️ Data loss on the way up:** whatever is stored in column `signals.payload`." in result.out
    assert "- `~` column `events.description`" in result.out
    assert "type: `text` → `character varying(2000)`" in result.out
    assert_current("dangerous", result)


def test_a_revision_that_may_make_the_application_wait_says_why(clone: Clone, dsn: str) -> None:
    good(clone)
    (path,) = clone.versions.glob("003_*.py")
    path.write_text(f'{path.read_text()}\n\nmax_stall = "5s"  # the_table is small\n')
    clone.commit()
    result = review(clone, dsn)
    assert result.code == 0, result.out + result.err
    sign, summary = verdicts(result)["Locks"]
    assert (sign, "revision 003 allows itself 5s: the_table is small" in summary) == ("⚠️", True)
    words = r"**⚠️ The application may wait** for up to 5s in each direction: the\_table is small"
    assert words in result.out


def test_two_heads(clone: Clone, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = report(clone, "two-heads", dsn)
    assert result.code == 3, result.out + result.err
    sign, summary = verdicts(result)["One line"]
    assert sign == "❌"
    assert "003_add_incident_priority.py, 003_add_teams.py" in summary
    assert signs(result)["Models"] == "✅"
    assert_current("two-heads", result)

    follow(clone, result.out)
    assert sorted(path.name for path in clone.versions.glob("00*")) == [
        "001_initial_schema.py", "002_add_schedules.py", "003_add_teams.py", "004_add_incident_priority.py"
    ]  # fmt: skip
    monkeypatch.delenv("GITHUB_BASE_REF", raising=False)
    merged = branch.read(clone.versions).merged
    files.plant(clone.directory / "merged", clone.versions.parent, merged).validate()


def follow(clone: Clone, text: str) -> None:
    """Do what the report says about the line of the revisions."""
    (block,) = re.findall(r"\*\*One line\.\*\*.*?```console\n(.*?)```", text, re.DOTALL)
    guvnor = Command("guvnor", clone.directory.parent)
    for line in block.splitlines():
        program, *words = shlex.split(line.removeprefix("$ "))
        if program == "git":
            clone.git(*words, *(["--no-edit"] if words[0] == "merge" else []))
        else:
            succeeds(guvnor(*words, cwd=clone.directory))


def test_models_and_revisions_disagree(clone: Clone, dsn: str) -> None:
    result = report(clone, "disagreeing", dsn)
    assert result.code == 6, result.out + result.err
    sign, summary = verdicts(result)["Models"]
    assert sign == "❌"
    assert "column incidents.priority differs" in summary
    assert "index incidents.idx_incidents_priority is only in the revisions" in summary
    assert {name: sign for name, sign in signs(result).items() if name != "Models"} == dict.fromkeys(
        [name for name in CHECKS if name != "Models"], "✅"
    )
    assert_current("disagreeing", result)


def assert_current(name: str, result: Result) -> None:
    """The report that docs/ shows is this one."""
    assert (reports.FOLDER / f"{name}.md").read_text() == result.out, "run: python -m tests.support.reports"


# Other branches


def test_the_merge_commit_that_a_workflow_checks_out(clone: Clone, dsn: str) -> None:
    """Both files of one number are there then, and the rest of the report is about the renumbered one."""
    two_heads(clone)
    teams = 'teams = Table("teams", metadata, uuid_key(), Column("name", Text, nullable=False))\n'
    clone.change_models({"# What SQLAlchemy has no objects for.\n": teams})
    clone.git("merge", "--quiet", "--no-edit", "main")
    clone.commit()
    result = review(clone, dsn)
    assert result.code == 3, result.out + result.err
    assert {**signs(result), "Lint": "✅"} == {**dict.fromkeys(CHECKS, "✅"), "One line": "❌"}, result.out
    assert "used the renumbered revisions" in result.out
    assert "$ guvnor migrate renumber 003_add_incident_priority.py\n" in result.out


def test_without_a_new_revision_it_is_brief(clone: Clone, dsn: str) -> None:
    result = review(clone, dsn)
    assert result.code == 0, result.out + result.err
    assert signs(result) == {"One line": "✅", "Models": "✅", "Lint": "✅"}
    assert "no new revision" in result.out
    assert len(result.out.splitlines()) < 12


def test_a_revision_that_fails_still_gives_a_whole_report(clone: Clone, dsn: str) -> None:
    clone.add_revision("ALTER TABLE incidents ADD COLUMN c text NOT NULL", name="fail")
    result = review(clone, dsn)
    found = verdicts(result)
    assert found["Round trip"][0] == "❌"
    assert "contains null values" in found["Round trip"][1]
    assert "ADD COLUMN c" in result.out
    assert found.keys() == set(CHECKS)
    assert found["Locks"] == ("➖", "Not checked: a revision failed.")
    assert result.code == 6  # the models lack the column, too


def test_a_revision_that_never_runs(clone: Clone, dsn: str) -> None:
    clone.add_revision("CREATE TABL teams ()", name="fail")
    result = review(clone, dsn)
    assert result.code == 1
    assert set(signs(result)) == set(CHECKS)
    assert "syntax error" in verdicts(result)["Models"][1]
    assert "CREATE TABL teams" in result.out
    assert str(clone.directory) not in result.out
    assert "/tmp" not in result.out


def test_a_file_that_is_no_python(clone: Clone, dsn: str) -> None:
    (clone.versions / "003_broken.py").write_text("def upgrade(:")
    result = review(clone, dsn)
    assert result.code == 3
    assert verdicts(result)["One line"][0] == "❌"
    assert "003_broken.py" in result.out


def test_a_revision_without_a_way_back_is_named_as_in_the_checkout(clone: Clone, dsn: str) -> None:
    path = clone.add_revision("SELECT 1", name="one_way")
    path.write_text(path.read_text().partition("def downgrade")[0])
    result = review(clone, dsn)
    assert result.code == 3
    assert "$EDITOR alembic/versions/003_one_way.py\n" in result.out


def test_a_revision_that_is_gone_is_brought_back(clone: Clone, dsn: str) -> None:
    (clone.versions / "002_add_schedules.py").unlink()
    clone.add_revision("SELECT 1", name="next", number=3, after="002")
    result = review(clone, dsn)
    assert result.code == 3
    assert result.out.count("git checkout main -- alembic/versions/002_add_schedules.py") == 2
    assert "migrate renumber" not in result.out


def test_what_does_not_come_back(clone: Clone, dsn: str) -> None:
    clone.add_revision(
        """
op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
op.execute("CREATE TABLE a ()")
op.execute("CREATE TABLE b ()")
op.execute("ALTER TABLE incidents ALTER title TYPE text")
op.execute("UPDATE schedules SET timezone = 'UTC'")
op.execute("DELETE FROM audit_logs")
op.execute("UPDATE notification_rules SET name = name")
""",
        """
op.execute("DROP TABLE a")
op.execute("DELETE FROM events WHERE actor LIKE '%101'")
""",
        python=True,
    )
    result = review(clone, dsn)
    assert result.code == 6
    sign, summary = verdicts(result)["Round trip"]
    assert (sign, summary) == ("❌", "After down to 002: table b is left over")
    for words in (
        "table b is left over",
        "column incidents.title: type is text, was character varying(200)",
        "table schedules: 3 of 3 rows are not as they were in timezone",
        "table audit_logs: 3 of 3 rows are not as they were",
        "After down to 002, extension btree_gist stays.",
        "The downgrade deletes 1 of 6 rows of table events.",
        "The revisions update rows of table notification_rules, and a trigger sets updated_at.",
    ):
        assert words in result.out


def test_what_changes_data_is_said_with_the_rows_that_stay_locked(clone: Clone, dsn: str) -> None:
    clone.add_revision(
        """
# changes data: notification_rules.name: a trigger has to see each row
op.execute("UPDATE notification_rules SET name = name WHERE true")
""",
        """
# changes data: events: nobody reads those of this actor
op.execute("DELETE FROM events WHERE actor LIKE '%101'")
""",
        python=True,
    )
    result = review(clone, dsn)
    assert result.code == 0, result.out
    found = verdicts(result)
    assert found["Lint"][0] == "✅"
    lost = "The upgrade loses stored data: it overwrites column notification_rules.name."
    assert found["Data"] == ("⚠️", lost)
    assert found["Locks"][0] == "⚠️"
    assert "the rows of notification_rules that change stay locked until the commit" in found["Locks"][1]
    for words in (
        "**⚠️ Data loss on the way up:** it overwrites column `notification_rules.name`.",
        "The revision accepts that for `notification_rules.name`: a trigger has to see each row",
        "**Data loss on the way back:** it deletes rows of table `events`.",
    ):
        assert words in result.out


def test_a_downgrade_that_cannot_cope_with_new_rows(clone: Clone, dsn: str) -> None:
    clone.add_revision(
        "ALTER TABLE team_preferences DROP CONSTRAINT team_preferences_team_id_not_empty; "
        "ALTER TABLE team_preferences ADD CONSTRAINT short CHECK (length(team_id) < 100)",
        "ALTER TABLE team_preferences DROP CONSTRAINT short; "
        "ALTER TABLE team_preferences ADD CONSTRAINT team_preferences_team_id_not_empty "
        "CHECK (length(trim(team_id)) > 0 AND team_id NOT LIKE '%101')",
    )
    result = review(clone, dsn)
    assert "down to 002 failed" in verdicts(result)["Round trip"][1]


def test_a_review_that_is_told_to_stop_leaves_nothing(
    clone: Clone, server: Server, guvnor: ForkedCommand, tmp_path: Path
) -> None:
    path = clone.add_revision(SLEEPS, name="sleep")
    path.write_text(path.read_text() + '\n\nprint("not for the report")\n')
    (temporary := tmp_path / "temporary").mkdir()
    process = guvnor.process.start(
        *("schema", "review"),
        cwd=clone.directory,
        env={"GUVNOR_SHADOW_DSN": server.dsn, "GITHUB_BASE_REF": None, "TMPDIR": str(temporary)},
    )
    wait_for("the round trip", lambda: server.execute(ASLEEP), seconds=60)
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, ""), err
    assert "❌ Interrupted by SIGTERM.\n   State: Nothing was changed.\n" in err
    assert list(temporary.iterdir()) == []
    wait_for("the end of the migration", lambda: not server.execute(ASLEEP))


def test_what_a_killed_review_leaves_is_dropped_by_the_next(
    clone: Clone, server: Server, guvnor: ForkedCommand, tmp_path: Path
) -> None:
    revision = clone.add_revision(SLEEPS, name="sleep")
    killed = guvnor.process.start(
        *("schema", "review"),
        cwd=clone.directory,
        env={"GUVNOR_SHADOW_DSN": server.dsn, "GITHUB_BASE_REF": None, "TMPDIR": str(tmp_path)},
    )
    try:
        ((name,),) = wait_for("the round trip", lambda: server.execute(ASLEEP), seconds=60)
        revision.unlink()
        clone.add_revision("SELECT 1", name="other")
        there = f"SELECT count(*) FROM pg_database WHERE datname = '{name}'"
        assert signs(review(clone, server.dsn))["Round trip"] == "✅"
        assert server.execute(there) == [(1,)], "it was still in use"
    finally:
        kill(killed)
    wait_for(
        "the end of its session",
        lambda: not server.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'guvnor review'"),
    )
    review(clone, server.dsn)
    assert server.execute(there) == [(0,)]


def test_a_todo_is_one_problem_and_hides_no_other_check(clone: Clone, dsn: str) -> None:
    """As autogenerate leaves it, with comments alone, beside a statement that is to be tried."""
    clone.add_revision(
        '''
op.execute("CREATE TABLE IF NOT EXISTS notes (id uuid PRIMARY KEY)")
op.execute("""
    -- TODO: which column?
    -- ALTER TABLE notes ADD COLUMN a text
""")
''',
        'op.execute("DROP TABLE IF EXISTS notes")',
        python=True,
    )
    result = review(clone, dsn)
    found = verdicts(result)
    expected = {**dict.fromkeys(CHECKS, "✅"), "Models": "❌", "Lint": "❌"}
    assert signs(result) == expected, result.out + result.err
    assert "table notes is only in the revisions" in found["Models"][1]
    assert found["Lint"][1] == "Problems: 1 (no-todo)."
    assert "- `+` table `notes`" in result.out


def test_a_fault_of_the_tool_is_called_so_and_hides_no_other_check(clone: Clone, dsn: str) -> None:
    path = clone.directory / "guvnor" / "review" / "changes.py"
    path.write_text(
        path.read_text().replace(
            "    absent = {item.handle: item for item in objects}\n",
            "    absent = {item.handle: item for item in objects}\n"
            "    if any(item.name == 'broken' for item in objects):\n"
            "        raise KeyError('relation:broken')\n",
        )
    )
    clone.commit()
    clone.git("branch", "--force", "main")
    clone.add_revision("CREATE TABLE IF NOT EXISTS broken ()", "DROP TABLE IF EXISTS broken", name="one")
    clone.add_revision("CREATE TABLE IF NOT EXISTS notes ()", "DROP TABLE IF EXISTS notes", name="two")
    result = review(clone, dsn, "-v")
    expected = {**dict.fromkeys(CHECKS, "✅"), "Models": "❌", "Data": "❌"}
    assert signs(result) == expected, result.out + result.err
    words = (
        "The check broke off. That is a fault of guvnor, not of the revisions: KeyError: 'relation:broken'"
    )
    assert verdicts(result)["Data"][1] == words
    assert "guvnor schema review -v" in result.out
    assert "- `+` table `notes`" in result.out, "the revision after it is listed nevertheless"
    assert "raise KeyError('relation:broken')" in result.err


def test_a_chain_is_renumbered_from_its_end(clone: Clone, dsn: str) -> None:
    """Two files with the same words: the first may not take the place of the second before that has moved."""
    for name in ("teams", "teams"):
        clone.add_revision("SELECT 1", name=name)
    clone.commit()
    clone.git("switch", "--quiet", "main")
    clone.add_revision("SELECT 1", name="regions")
    clone.commit()
    clone.git("switch", "--quiet", "change")
    result = review(clone, dsn)
    assert verdicts(result)["One line"][0] == "❌"
    follow(clone, result.out)
    assert sorted(path.name for path in clone.versions.glob("00*"))[2:] == [
        "003_regions.py", "004_teams.py", "005_teams.py"
    ]  # fmt: skip
    files.plant(
        clone.directory / "merged", clone.versions.parent, branch.read(clone.versions).merged
    ).validate()


def test_without_git_it_says_so(clone: Clone, dsn: str) -> None:
    shutil.rmtree(clone.directory / ".git")
    result = review(clone, dsn)
    assert result.code == 2
    assert "not in a Git checkout" in result.err
    assert result.out == ""


def test_a_role_without_createdb_is_told(server: Server, database: Database, clone: Clone) -> None:
    good(clone)
    role = server.create_role()
    server.execute(f'GRANT ALL ON DATABASE "{database.name}" TO "{role.name}"')
    result = review(clone, database.dsn_with(role))
    assert result.code == 3
    assert "may not create a scratch database" in verdicts(result)["Round trip"][1]
    assert "CREATEDB" in result.out
    assert signs(result)["Models"] == "✅"
    assert role.password not in result.out + result.err


# What to do, and the report for programs


def test_the_commands_make_a_failed_round_trip_again_with_its_rows(
    clone: Clone, database: Database, dsn: str, tmp_path: Path
) -> None:
    """On an empty database, this downgrade works: only a row that was written after the upgrade stops it."""
    clone.add_revision(
        "ALTER TABLE team_preferences DROP CONSTRAINT team_preferences_team_id_not_empty",
        "ALTER TABLE team_preferences ADD CONSTRAINT team_preferences_team_id_not_empty "
        "CHECK (length(trim(team_id)) > 0 AND team_id NOT LIKE '%101')",
    )
    result = review(clone, dsn, "--json")
    found = json.loads(result.out)
    check = next(check for check in found["checks"] if check["name"] == "Round trip")
    assert (check["verdict"], check["count"]) == ("failed", "1 problem")
    lines = check["next"].splitlines()
    assert lines[-1] == "guvnor migrate down --to 002"
    # The local server of the page is the tests' own here.
    start = next(place for place, line in enumerate(lines) if line.startswith("guvnor migrate up --to"))
    assert lines[start - 1] == 'export GUVNOR_STORAGE_DSN="$(guvnor db url)&dbname=round_trip"'
    script = "\n".join(lines[start:]).replace("guvnor ", f"{sys.executable} -m guvnor ")
    env = {name: text for name, text in os.environ.items() if not name.startswith(("GUVNOR_", "PG"))}
    env |= {"GUVNOR_STORAGE_DSN": database.dsn, "PYTHONPATH": str(clone.directory), "HOME": str(tmp_path)}
    env |= {name: os.environ[name] for name in ("GUVNOR_PG_BIN",) if name in os.environ}
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone.directory, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "team_preferences_team_id_not_empty" in done.stderr, done.stdout + done.stderr
    assert database.execute("SELECT count(*) FROM team_preferences") == [(6,)]


def test_the_report_for_programs(clone: Clone, dsn: str) -> None:
    good(clone)
    found = json.loads(review(clone, dsn, "--json", "--output", "report.md").out)
    assert (found["exit_code"], found["new"]) == (0, ["003_add_incident_priority.py"])
    assert [check["name"] for check in found["checks"]] == CHECKS
    assert {check["verdict"] for check in found["checks"]} == {"passed"}
    (revision,) = found["revisions"]
    assert next(change["object"] for change in revision["up"]["changes"]) == "incidents.priority"
    assert revision["down"]["lost"] == [
        {"kind": "column", "name": "incidents.priority", "how": "drop", "accepted": None}
    ]
    assert "## ✅ Migrations" in (clone.directory / "report.md").read_text()
