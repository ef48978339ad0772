"""Is what a person reads made for the terminal, of 80 columns and of 120? A terminal emulator looks at it."""

from __future__ import annotations

import re

import pytest

from tests.support.command import Result
from tests.support.expect import ends, succeeds
from tests.support.forked import ForkedCommand
from tests.support.project import Project

pyte = pytest.importorskip("pyte", reason="the extra dev has it")

LONG = """
    DO $$ BEGIN PERFORM 1; END $$;  -- might mend the rows, so that pre-flight lets it pass
    ALTER TABLE incidents ADD CONSTRAINT incidents_title_is_long_enough_for_everybody_who_reads_it
    CHECK (length(title) > 3 AND title <> 'a title that is written in a hurry' AND title IS NOT NULL)
"""
VALIDATED = (
    'op.execute("ALTER TABLE incidents ADD CONSTRAINT long_title CHECK (length(title) > 99) NOT VALID")\n'
    'op.validate_constraint("incidents", "long_title")'
)
UNDONE = "op.execute('ALTER TABLE incidents DROP CONSTRAINT IF EXISTS long_title')"


def piped(result: Result) -> list[str]:
    """The lines of standard output."""
    return succeeds(result).out.splitlines()


widths = pytest.mark.parametrize("columns", [80, 120])


def screen(result: Result, columns: int) -> list[str]:
    """The rows that the terminal shows, without the empty ones at its end."""
    lines = result.out.split("\n")
    emulator = pyte.Screen(columns, 4 * len(lines) + 10)
    # The emulator does not know the selector that makes a sign an emoji, and would drop the rest of the line.
    pyte.Stream(emulator).feed("\r\n".join(lines).replace("\ufe0f", ""))
    return "\n".join(row.rstrip() for row in emulator.display).rstrip().split("\n")


def assert_fits(result: Result, columns: int) -> list[str]:
    """Expect that the terminal has broken no line, but for a word that is longer than a row."""
    rows = screen(result, columns)
    written = [line.rstrip().replace("\ufe0f", "") for line in result.plain.rstrip().split("\n")]
    torn = [
        line for line in written if line not in rows and max(map(len, line.split()), default=0) < columns - 4
    ]
    assert torn == [], "\n".join(rows)
    return rows


@pytest.fixture(scope="module")
def eventful(server, template_at_version_1, tmp_path_factory):
    """A database with seven attempts in its history, three of them with a long error, and its project."""
    database = server.create_database(template_at_version_1, keep=True)
    project = Project(tmp_path_factory.mktemp("eventful"))
    guvnor = ForkedCommand("guvnor", tmp_path_factory.mktemp("run"))
    here = {"database": database, "cwd": project.directory}
    for words in (("up",), ("down",), ("up",)):
        succeeds(guvnor("migrate", *words, **here))
    database.execute(
        "INSERT INTO incidents (title, severity, team_id) "
        "VALUES ('x', (enum_range(NULL::incident_severity))[1], 'team')"
    )
    project.add_revision(LONG, "ALTER TABLE incidents DROP CONSTRAINT incidents_title_is_long_enough")
    for _ in range(3):
        ends(guvnor("migrate", "up", **here), 1, "incidents_title_is_long_enough")
    database.execute(
        "UPDATE guvnor_migration_history SET job = 'https://ci.example/guvnor/-/jobs/4711' WHERE id % 2 = 0"
    )
    guvnor.close()
    return here


@widths
def test_the_history_is_a_table_and_not_a_column_of_letters(eventful, guvnor, columns):
    result = succeeds(guvnor.terminal("migrate", "history", columns=columns, **eventful))
    rows = assert_fits(result, columns)
    started = [row for row in rows if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  up 00\d ", row)]
    assert len(started) >= 6
    assert len(rows) <= 1 + 5 * (len(started) + 2)
    assert "incidents_title_is_long_enough_for_everybody_who_reads_it" in " ".join(rows)
    # A pipe has no width: one line for each attempt.
    lines = piped(guvnor("migrate", "history", **eventful))[1:]
    assert all(re.search("  (guvnor|alembic) ", line) for line in lines)  # another test may run alembic


@widths
@pytest.mark.parametrize(
    "words",
    ["config show", "migrate plan", "migrate status", "migrate preflight", "--help", "migrate up --help"],
)
def test_what_is_asked_for_fits(eventful, guvnor, columns, words):
    settings = {
        "GUVNOR_BACKUP_DIR": "/var/backups/of/guvnor",
        "GUVNOR_REPLICAS_IGNORE": "delayed-*,reports-*",
    }
    result = succeeds(guvnor.terminal(*words.split(), columns=columns, env=settings, **eventful))
    assert_fits(result, columns)


@widths
def test_what_a_run_says_fits(eventful, guvnor, alembic, columns):
    failed = ends(guvnor.terminal("migrate", "up", columns=columns, **eventful), 1, "State:", "Next:")
    rows = assert_fits(failed, columns)
    assert [row for row in rows if row.startswith("❌")] == [row for row in rows if "❌" in row]
    logged = [row for row in rows if re.match(r"\d\d:\d\d:\d\d INFO", row)]
    assert logged
    if columns == 80:
        assert any(row.startswith(" " * 15) for row in rows), "a long record goes on below its message"
    assert_fits(ends(alembic.terminal("upgrade", "head", columns=columns, **eventful), 1), columns)


@widths
def test_a_drift_and_a_lint_report_fit(migrated, repository, guvnor, columns):
    migrated.execute("""
        ALTER TABLE incidents ADD COLUMN something_that_nobody_has_written_into_a_revision text;
        ALTER TABLE incidents DROP COLUMN description;
        CREATE INDEX an_index_that_is_not_expected_here ON incidents (status, severity, title, created_at);
    """)
    drift = guvnor.terminal("schema", "check", columns=columns, database=migrated)
    assert drift.code == 6
    rows = assert_fits(drift, columns)
    assert rows[0].startswith("❌ Drift: ")
    repository.add_revision("DROP TABLE incidents CASCADE; SELECT a_function_that_is_not_there(1)")
    lint = guvnor.terminal("schema", "lint", columns=columns, cwd=repository.directory)
    assert lint.code == 3
    assert_fits(lint, columns)


def test_when_all_is_well_the_checks_are_one_line(migrated, guvnor):
    here = {"database": migrated}
    for shown in (guvnor.terminal("migrate", "up", **here), guvnor("migrate", "up", **here)):
        ticks = [line for line in shown.plain.splitlines() if line.startswith("✅")]
        passed, end = ticks
        assert re.fullmatch(
            r"✅ Pre-flight checks passed: PostgreSQL \S+, role \w+, 2 migrations found, version 2", passed
        )
        assert end == "✅ No change: version 2"
    for words in (("migrate", "up", "-v"), ("migrate", "preflight")):
        shown = succeeds(guvnor(*words, **here), "Running pre-flight checks", "✅ Pre-flight checks passed\n")
        assert len(re.findall("^✅", shown.out, re.MULTILINE)) >= 7


@pytest.mark.parametrize("command", ["up", "preflight", "deploy"])
def test_an_error_stands_on_a_terminal_once(guvnor, command):
    nobody = "host=/nowhere dbname=x user=y"
    shown = ends(guvnor.terminal("migrate", command, database=nobody), 3)
    assert shown.plain.count("database connection failed") == 1
    # Elsewhere, the result and the log are two streams.
    apart = ends(guvnor("migrate", command, database=nobody), 3)
    assert apart.err.count("database connection failed") == 1
    assert "❌ database connection failed" in apart.out


def test_a_bar_goes_when_its_step_ends(at_version_1, guvnor, project):
    """What is shown afterwards does not stand beside a bar that is left over."""
    project.add_revision(VALIDATED, UNDONE, python=True)
    result = succeeds(guvnor.terminal("migrate", "up", database=at_version_1, cwd=project.directory))
    rows = screen(result, 120)
    assert [row for row in rows if "━" in row] == []
    assert any(row.startswith("✅ Applied 003") for row in rows)
