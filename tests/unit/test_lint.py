"""Does lint find what is wrong with a revision, and nothing else?"""

from __future__ import annotations

import sys
from textwrap import dedent

import pgparse
import pytest

from guvnor.errors import UsageError
from guvnor.lint import LintProblem, LintReport, ignores, lint_revisions, squawk
from guvnor.lint.engine import FILES_RULES, REVISION_RULES
from guvnor.lint.parsing import MissingToolError
from guvnor.lint.squawk_rules import ENFORCED, OFF, OFF_IN_DOWNGRADE
from guvnor.reports import lint as lint_report
from guvnor.reports.lint_rules import page
from tests.support.command import CHECKOUT, FROZEN
from tests.support.lint import GOOD, commit, found, git, in_branch, written
from tests.support.project import Project
from tests.support.squawk_examples import SQUAWK_EXAMPLES

PAGE = CHECKOUT / "docs" / "lint.md"


def rules(project: Project, since: str = "002") -> list[str]:
    return [problem.rule for problem in found(project, since).problems]


# The rules and their examples


def test_the_first_revisions_are_clean():
    result = lint_revisions(FROZEN / "alembic.ini", "base")
    assert result.problems == ()
    assert result.revisions == ("001_initial_schema.py", "002_add_schedules.py")


@pytest.mark.parametrize("rule", [*REVISION_RULES, ignores.UNUSED], ids=lambda rule: rule.name)
def test_a_rule_of_ours(project, rule):
    written(project, rule.bad)
    assert set(rules(project)) == {rule.name}
    written(project, rule.good)
    assert rules(project) == []


@pytest.mark.parametrize("rule", SQUAWK_EXAMPLES)
def test_a_rule_of_squawk(project, rule):
    bad, good = SQUAWK_EXAMPLES[rule]
    written(project, bad)
    (problem,) = found(project).problems
    assert (problem.rule, problem.direction) == (rule, "up")
    assert problem.help == ENFORCED[rule] or (ENFORCED[rule] is None and problem.help)
    written(project, good)
    assert rules(project) == []


OTHERS = {
    "adding-serial-primary-key-field": "ALTER TABLE schedules ADD PRIMARY KEY (id)",
    "ban-drop-not-null": "ALTER TABLE schedules ALTER COLUMN name DROP NOT NULL",
    "ban-drop-default": "ALTER TABLE schedules ALTER COLUMN config DROP DEFAULT",
    "ban-drop-constraint": "ALTER TABLE schedules DROP CONSTRAINT IF EXISTS schedule_name_not_empty",
    "ban-drop-view": "DROP VIEW IF EXISTS a",
    "ban-drop-function": "DROP FUNCTION IF EXISTS a()",
    "ban-drop-type": "DROP TYPE IF EXISTS a",
    "ban-drop-schema": "DROP SCHEMA IF EXISTS a",
    "ban-drop-sequence": "DROP SEQUENCE IF EXISTS a",
    "ban-drop-domain": "DROP DOMAIN IF EXISTS a",
    "ban-drop-extension": "DROP EXTENSION IF EXISTS a",
    "ban-drop-generated-expression": "ALTER TABLE schedules ALTER COLUMN name DROP EXPRESSION IF EXISTS",
    "ban-drop-database": "DROP DATABASE IF EXISTS a",
    "renaming-object": "ALTER TYPE channel_type RENAME VALUE 'sms' TO 'text'",
    "ban-set-schema": "ALTER TABLE schedules SET SCHEMA a",
    "ban-alter-identity": "ALTER TABLE schedules ALTER COLUMN id SET GENERATED ALWAYS",
    "ban-truncate-cascade": "TRUNCATE schedules CASCADE",
    "require-concurrent-reindex": "REINDEX TABLE schedules",
    "require-concurrent-partition-detach": "ALTER TABLE schedules DETACH PARTITION a",
    "identifier-too-long": f"CREATE TABLE IF NOT EXISTS {'a' * 64} (b uuid)",
    "ban-duplicate-column-assignments": "UPDATE schedules SET name = 'a', name = 'b' WHERE active",
    "ban-char-field": "ALTER TABLE schedules ADD COLUMN IF NOT EXISTS a char(3)",
    "prefer-timestamp-tz": "ALTER TABLE schedules ADD COLUMN IF NOT EXISTS a timestamp",
    "prefer-identity": "CREATE TABLE IF NOT EXISTS a (b bigserial)",
    "ban-create-domain-with-constraint": "CREATE DOMAIN a AS text CHECK (VALUE <> '')",
    "ban-alter-domain-with-add-constraint": "ALTER DOMAIN a ADD CONSTRAINT b CHECK (VALUE <> '')",
}


def test_the_other_rules_of_squawk(project):
    assert set(OTHERS) == ENFORCED.keys() - SQUAWK_EXAMPLES.keys()
    guarded = "op.execute(\"DO $$ BEGIN IF now() > '2020-01-01' THEN {}; END IF; END $$\")"
    path = written(project, "\n".join(guarded.format(statement) for statement in OTHERS.values()))
    lines = path.read_text().splitlines()
    problems = found(project).problems
    for rule, statement in OTHERS.items():
        told = {p.rule: p for p in problems if statement in lines[(p.line or 0) - 1]}
        assert rule in told, statement
        assert told[rule].help == ENFORCED[rule] or (ENFORCED[rule] is None and told[rule].help)


def test_what_is_off_is_off(project):
    assert OFF.keys().isdisjoint(ENFORCED)
    assert ENFORCED.keys() >= OFF_IN_DOWNGRADE
    written(
        project,
        'op.execute("CREATE TABLE IF NOT EXISTS teams (id int PRIMARY KEY, size smallint, name varchar(9))")',
        down='op.execute("DROP TABLE IF EXISTS teams")',
    )
    assert rules(project) == []


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == page(), "run: guvnor schema rules > docs/lint.md"
    for name in (*(rule.name for rule in (*REVISION_RULES, *FILES_RULES)), *ENFORCED, *OFF):
        assert f"`{name}`" in page()


# What the rules see


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# changes data: events: nobody reads them", []),
        ("# changes data: events.title: nobody reads it", []),
        ('# changes data: "events" : nobody reads them', []),
        ("# changes data: events:", ["changes-data", "truncate"]),
        ("# changes data: events", ["changes-data", "truncate"]),
        ("# changes data:", ["changes-data", "truncate"]),
        ("# changes data: signals: nobody reads them", ["truncate"]),
    ],
)
def test_a_change_of_data_is_accepted_with_a_reason(project, comment, expected):
    written(project, f'{comment}\nop.execute("TRUNCATE events")')
    assert sorted(rules(project)) == expected


def test_a_change_of_data_is_accepted_for_one_direction(project):
    accepted = "# changes data: events: nobody reads them"
    written(project, f'{accepted}\nop.execute("SELECT 1")', down='op.execute("TRUNCATE events")')
    assert rules(project) == ["truncate"]


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "idempotent-statements"),
        ("ALTER TYPE channel_type ADD VALUE 'teams'", "idempotent-statements"),
        ("CREATE EXTENSION pg_trgm", "idempotent-statements"),
        ("INSERT INTO schedules (name, team_id) VALUES ('a', 'b')", "idempotent-statements"),
        ("DO $$ BEGIN CREATE TYPE mood AS ENUM ('good'); END $$", "idempotent-statements"),
        ("UPDATE schedules SET active = true", "update-all-rows"),
        (
            "DO $$ BEGIN UPDATE schedules SET active = true WHERE 'a' = 'a' OR active; END $$",
            "update-all-rows",
        ),
        ("UPDATE schedules SET active = true WHERE NOT false", "update-all-rows"),
        ("WITH a AS (UPDATE schedules SET active = true WHERE true) SELECT 1", "update-all-rows"),
        ("UPDATE schedules SET active = true WHERE name LIKE 'a%'", "update-many-rows"),
        ("UPDATE schedules SET active = true WHERE id IN (SELECT id FROM events)", "update-many-rows"),
        ("UPDATE schedules SET active = true WHERE id = 'a' OR NOT active", "update-many-rows"),
        ("UPDATE schedules SET active = true FROM events WHERE events.id = schedules.id", "update-many-rows"),
        ("DELETE FROM events", "delete-all-rows"),
        ("DELETE FROM events USING schedules WHERE events.id = schedules.id", "delete-many-rows"),
        ("DELETE FROM schedules WHERE NOT active", "delete-many-rows"),
        ("DELETE FROM events WHERE true AND 1 = 1", "delete-all-rows"),
        ("WITH gone AS (DELETE FROM events RETURNING id) SELECT count(*) FROM gone", "delete-all-rows"),
        ("DO $$ BEGIN EXECUTE 'TRUNCATE events'; END $$", "truncate"),
        ("TRUNCATE events, audit_logs", "truncate"),
        ("DROP INDEX CONCURRENTLY IF EXISTS idx_signals_source", "one-concurrently"),
        ("REINDEX TABLE CONCURRENTLY signals", "one-concurrently"),
        ("SELECT set_config('lock_timeout', '5s', true)", "timeouts-not-overridden"),
        ("SELECT set_config('LOCK_TIMEOUT', '5s', true)", "timeouts-not-overridden"),
        ('SET LOCAL "Lock_Timeout" = 0', "timeouts-not-overridden"),
        ("RESET ALL", "timeouts-not-overridden"),
        ("DO $$ BEGIN PERFORM set_config('statement_timeout', '0', true); END $$", "timeouts-not-overridden"),
        ("ALTER ROLE guvnor SET statement_timeout = 0", "timeouts-not-overridden"),
        ("SELEC 1", "readable"),
        ("", "readable"),
        ("-- nothing;", "readable"),
        ("DO $$ BEGIN IF true SELECT 1; END $$", "readable"),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE IF EXISTS events'; END $$", "ban-drop-table"),
        ("DO $$ BEGIN EXECUTE 'SELEC 1'; END $$", "readable"),
        (r"SELECT '\ud800'", "readable"),
        ("DROP TRIGGER IF EXISTS a ON public.events", "no-schema-name"),
        ("SELECT public.update_updated_at_column()", "no-schema-name"),
        ("DO $$ BEGIN UPDATE public.events SET title = '' WHERE id = 'a'; END $$", "no-schema-name"),
        ("/* a /* b */ c */ DROP TABLE IF EXISTS events", "ban-drop-table"),
        ("DO $$ BEGIN COMMIT; END $$", "no-transaction-control"),
        ("COMMIT", "no-transaction-control"),
        ("BEGIN", "no-transaction-control"),
        ("SELECT 1 /* TODO */", "no-todo"),
        ("DO $$ BEGIN\n-- TODO\nNULL; END $$", "no-todo"),
    ],
)
def test_statements_that_are_found(project, statement, rule):
    written(project, f'op.execute("""{statement}""")')
    assert rules(project) == [rule]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE schedules DROP CONSTRAINT schedule_name_not_empty",
        "DROP TABLE schedules",
        "ALTER TABLE schedules DROP COLUMN config, ADD COLUMN IF NOT EXISTS a text",
        "DROP FUNCTION update_updated_at_column()",
        "ALTER TABLE schedules ADD CONSTRAINT a CHECK (active) NOT VALID",
    ],
)
def test_the_way_back_may_drop_and_is_idempotent(project, statement):
    written(project, 'op.execute("SELECT 1")', down=f'op.execute("{statement}")')
    assert [(p.rule, p.direction) for p in found(project).problems] == [("idempotent-statements", "down")]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE schedules ALTER COLUMN active SET DEFAULT false",
        "INSERT INTO schedules (name, team_id) VALUES ('a', 'b') ON CONFLICT DO NOTHING",
        "INSERT INTO schedules (name, team_id) SELECT 'a', 'b' WHERE NOT EXISTS (SELECT FROM schedules)",
        "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE schedules SET description = 'TODO' WHERE name = 'a'",
        "UPDATE schedules SET active = true WHERE id = ANY ('{1,2}'::uuid[]) AND NOT active",
        "UPDATE schedules SET active = true WHERE schedules.id IN ('a', 'b'::uuid)",
        "CREATE TABLE IF NOT EXISTS a (b int); UPDATE a SET b = 1 WHERE b = 0; TRUNCATE a; DELETE FROM a",
        "CREATE OR REPLACE FUNCTION empty() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM events; END",
        "SELECT set_config('search_path', 'public', true)",
        "SET LOCAL synchronous_commit = off",
        "GRANT SELECT ON schedules TO reader",
        "GRANT USAGE ON SCHEMA public TO reader",
        "SELECT 'public.a' FROM pg_catalog.pg_class AS public WHERE public.relname IN ('public', 'a')",
        "DO $$ BEGIN IF to_regtype('mood') IS NULL THEN CREATE TYPE mood AS ENUM ('good'); END IF; END $$",
        "CREATE TABLE IF NOT EXISTS a (b uuid); CREATE INDEX IF NOT EXISTS a_b ON a (b)",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS a AS SELECT 1 AS b; CREATE INDEX IF NOT EXISTS a_b ON a (b)",
        "DO $$ BEGIN EXECUTE format('ANALYZE %I', 'events'); EXECUTE 'ANALYZE ' || 'events'; END $$",
    ],
)
def test_statements_that_are_left_alone(project, statement):
    written(project, f'op.execute("""{statement}""")')
    assert rules(project) == []


@pytest.mark.parametrize(
    "text",
    [
        'import importlib\n\nmodels = importlib.import_module("guvnor.models")',
        'models = __import__("guvnor.models")',
        'from importlib import import_module\n\nname = "guvnor"\nmodels = import_module(name)',
    ],
)
def test_an_import_by_another_name(project, text):
    path = written(project, GOOD)
    path.write_text(path.read_text() + f"\n\n{text}\n")
    assert rules(project) == ["no-application-import"]
    path.write_text(path.read_text().replace('"guvnor.models"', '"json"').replace("(name)", '("json")'))
    assert rules(project) == []


def test_what_is_left_out_without_a_database(project):
    written(
        project,
        'if not op.get_context().as_sql:\n    op.get_bind().exec_driver_sql("DROP TABLE signals")\n' + GOOD,
    )
    assert rules(project) == ["readable"]


def test_a_message_names_the_statement(project):
    written(
        project,
        'op.execute("""\n    -- done\n    COMMIT;\n    /* the\n    index */ CREATE INDEX CONCURRENTLY '
        'IF NOT EXISTS a ON events (id)\n""")',
    )
    assert [(p.message, p.line) for p in found(project).problems] == [
        ("The revision says COMMIT.", 18),
        ("CREATE INDEX CONCURRENTLY does not run in the revision's transaction.", 20),
    ]


def test_the_line_is_the_one_in_the_file(project):
    path = written(
        project,
        dedent('''\
            op.execute("""
                DO $$
                BEGIN
                    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attname = 'größe') THEN
                        ALTER TABLE signals
                        ADD COLUMN here uuid DEFAULT uuid_generate_v4();
                    END IF;
                END
                $$
            """)
            for table in ("signals", "events"):
                op.execute(
                    f"""
                    ALTER TABLE {table}
                    ALTER COLUMN id TYPE text
                    """
                )'''),
        down='op.execute("DROP INDEX IF EXISTS idx_signals_source")',
    )
    lines = path.read_text().splitlines()
    places = [(p.line, p.rule, p.direction) for p in found(project).problems]
    marks = ("here", "TABLE {table}", "TYPE", "DROP")
    at = [next(n for n, line in enumerate(lines, 1) if text in line) for text in marks]
    assert places == [
        (at[0], "adding-field-with-default", "up"),
        (at[1], "no-lock-held", "up"),
        (at[2], "changing-column-type", "up"),
        (at[3], "require-concurrent-index-deletion", "down"),
    ]
    assert {p.file for p in found(project).problems} == {"alembic/versions/003_test.py"}


def test_a_line_that_is_not_in_the_file_is_that_of_the_call(project):
    path = project.add_revision("SELECT 1;\n\n\nDROP TABLE IF EXISTS audit_logs")
    (problem,) = found(project).problems
    assert "DROP TABLE" in path.read_text().splitlines()[problem.line - 1]


def test_two_statements_in_one_online_operation(project):
    written(
        project,
        'op.create_index_concurrently("a", "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON b (c); SELECT 1")',
    )
    assert rules(project) == ["one-concurrently"]


def test_a_file_that_cannot_be_read(project):
    written(project, "op.execute(")
    problems = [p for p in found(project).problems if p.rule == "readable"]
    assert len(problems) == 1
    written(project, "import nowhere_to_be_found\n\n\ndef upgrade() -> None:\n    pass")
    assert "No module named" in found(project).problems[0].message


def test_sql_that_is_newer_than_the_parser_is_not_called_wrong(project):
    """Without a server, lint says whose parser does not understand it, and which would."""
    written(
        project,
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS a int GENERATED ALWAYS AS (1) VIRTUAL")',
    )
    (problem,) = found(project).problems
    assert problem.rule == "readable"
    assert "lint's parser, which is PostgreSQL 17's: syntax error at or near" in problem.message
    assert "guvnor schema lint --shadow-dsn DSN" in problem.message


def test_the_parser_is_of_the_version_that_lint_names():
    assert pgparse.parse("ALTER TABLE a ALTER COLUMN b SET EXPRESSION AS (1)")  # since 17
    with pytest.raises(pgparse.PGQueryError):
        pgparse.parse("CREATE TABLE a (b integer GENERATED ALWAYS AS (1) VIRTUAL)")  # since 18


def test_what_makes_a_wider_type_read_the_rows_is_named(project):
    written(project, 'op.execute("ALTER TABLE signals ALTER COLUMN source TYPE varchar(400)")')
    (problem,) = found(project).problems
    assert "the server reads all rows for signal_source_not_empty." in problem.help


# Ignores

ABOVE_THE_FUNCTION = """\
# lint: ignore ban-drop-table: unused
def upgrade() -> None:
    op.execute("SELECT 1")
    op.execute("DROP TABLE IF EXISTS audit_logs")


def downgrade() -> None:
    op.execute("SELECT 1")"""

AT_THE_FUNCTION = """\
def upgrade() -> None:
    gone()


def downgrade() -> None:
    op.execute("SELECT 1")


def gone() -> None:  # lint: ignore ban-drop-table: unused
    op.execute("DROP TABLE IF EXISTS audit_logs")"""


@pytest.mark.parametrize(
    "text",
    [
        '# lint: ignore ban-drop-table: nobody uses it\nop.execute("DROP TABLE IF EXISTS audit_logs")',
        'op.execute("DROP TABLE IF EXISTS audit_logs")  # lint: ignore ban-drop-table: nobody uses it',
        '# lint: ignore ban-drop-table: unused\n# And so on.\nop.execute("DROP TABLE IF EXISTS audit_logs")',
        'op.execute(\n    # lint: ignore ban-drop-table: unused\n    "DROP TABLE IF EXISTS audit_logs"\n)',
        ABOVE_THE_FUNCTION,
        AT_THE_FUNCTION,
    ],
)
def test_an_ignore_lets_a_problem_pass(project, text):
    written(project, text)
    assert rules(project) == []


@pytest.mark.parametrize(
    ("comment", "expected", "message"),
    [
        ("ban-drop-table", ["ban-drop-table", "unused-ignore"], "gives no reason"),
        ("ban-drop-tables: typo", ["ban-drop-table", "unused-ignore"], "no known rule: ban-drop-tables"),
        ("ban-drop-column: another", ["ban-drop-table", "unused-ignore"], "suppresses nothing"),
        ("", ["ban-drop-table", "unused-ignore"], "no known rule: (nothing)"),
    ],
)
def test_an_ignore_that_is_no_good(project, comment, expected, message):
    written(project, f'# lint: ignore {comment}\nop.execute("DROP TABLE IF EXISTS audit_logs")')
    assert sorted(rules(project)) == expected
    (problem,) = (p for p in found(project).problems if p.rule == "unused-ignore")
    assert message in problem.message


def test_an_ignore_of_squawk_does_not_count(project):
    written(
        project,
        'op.execute("""\n    -- squawk-ignore ban-drop-table\n    DROP TABLE IF EXISTS audit_logs""")',
    )
    assert rules(project) == ["ban-drop-table"]


def test_an_ignore_is_for_its_own_statement(project):
    written(
        project,
        '# lint: ignore ban-drop-table: nobody uses it\nop.execute("DROP TABLE IF EXISTS audit_logs")\n'
        'op.execute("DROP TABLE IF EXISTS events")',
    )
    assert rules(project) == ["ban-drop-table"]


# Which revisions are new


def test_only_what_the_branch_brings(repository):
    assert in_branch(repository) == LintReport((), ())
    written(repository, 'op.execute("DROP TABLE IF EXISTS audit_logs")')
    assert in_branch(repository).revisions == ("003_test.py",)
    commit(repository)
    assert [p.rule for p in in_branch(repository).problems] == ["ban-drop-table"]


def test_a_number_that_the_main_branch_has_taken(repository):
    git(repository.directory, "switch", "main")
    written(repository, GOOD, "003_add_teams.py")
    commit(repository)
    git(repository.directory, "switch", "work")
    written(repository, GOOD, "003_add_regions.py")
    (problem,) = in_branch(repository).problems
    assert (problem.rule, problem.message) == ("numbers", "003_add_teams.py has the number 003 already.")
    assert problem.help == "guvnor migrate renumber 003_add_regions.py"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("004_test.py", "", "", "The number after 002 is 003, not 004."),
        ("003_test.py", '"002"', '"001"', "down_revision is '001', not '002'."),
        ("003_test.py", 'revision: str = "003"', 'revision: str = "3"', "revision is '3', not '003'."),
        ("Teams.py", 'revision: str = "Tea"', 'revision: str = "003"', "Teams.py is not named NNN_words.py."),
    ],
)
def test_numbers_that_do_not_fit(repository, name, old, new, message):
    path = written(repository, GOOD, name) if name[0] == "0" else repository.versions / name
    path.write_text(path.read_text().replace(old, new) if path.exists() else "")
    assert message in [p.message for p in in_branch(repository).problems if p.rule == "numbers"]


def test_a_revision_of_the_main_branch_is_not_changed(repository):
    path = repository.versions / "002_add_schedules.py"
    text = path.read_text()
    path.write_text(text.replace("def upgrade()", "# A remark.\ndef upgrade()"))
    assert in_branch(repository).clean
    path.write_text(text.replace("audit_logs", "audit_entries"))
    (problem,) = in_branch(repository).problems
    assert (problem.rule, problem.file) == (
        "applied-revision-changed",
        "alembic/versions/002_add_schedules.py",
    )
    path.unlink()
    written(repository, GOOD)  # keeps its number: it comes after the one to bring back
    assert ["deleted" in problem.message for problem in in_branch(repository).problems] == [True]
    command = in_branch(repository).problems[0].help.splitlines()[0]
    git(repository.directory, *command.split()[1:])
    assert in_branch(repository).clean


def test_a_byte_order_mark_and_other_line_ends(repository):
    path = written(repository, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert in_branch(repository) == found(repository) == LintReport(("003_test.py",), ())


def test_what_an_applied_revision_comes_after_is_not_changed(repository):
    path = repository.versions / "002_add_schedules.py"
    path.write_text(path.read_text().replace('= "001"', "= None"))
    assert [problem.rule for problem in in_branch(repository).problems] == ["applied-revision-changed"]


def test_another_file_of_the_same_name_on_the_main_branch(repository):
    git(repository.directory, "switch", "main")
    written(repository, GOOD)
    commit(repository)
    git(repository.directory, "switch", "work")
    written(repository, 'op.execute("DROP TABLE IF EXISTS audit_logs")')
    assert in_branch(repository).revisions == ("003_test.py",)
    numbers, drop = in_branch(repository).problems
    assert (numbers.rule, drop.rule) == ("numbers", "ban-drop-table")
    assert numbers.message == "003_test.py has the number 003 already."
    assert numbers.help == "guvnor migrate renumber 003_test.py"
    written(repository, GOOD)  # the same file came by another way
    assert in_branch(repository) == LintReport((), ())


def test_in_a_hook_of_git(repository, monkeypatch):
    """Git tells the hooks of a linked work tree its folders in the environment."""
    written(repository, GOOD)
    monkeypatch.setenv("GIT_DIR", str(repository.directory / ".git"))
    assert in_branch(repository).revisions == ("003_test.py",)


def test_since_names_a_revision(project):
    written(project, GOOD)
    assert found(project, "base").revisions[-1] == "003_test.py"
    assert found(project, "2").revisions == ("003_test.py",)
    assert found(project, "head").revisions == ()
    with pytest.raises(UsageError):
        found(project, "7")


# How it is told


def test_markdown_is_escaped():
    told = lint_report.as_markdown(
        LintReport(("x",), (LintProblem("a", "b", 3, "up", "no <b>`x`</b>", "see <this>"),))
    )
    assert "no &lt;b&gt;`x`&lt;/b&gt;" in told
    assert "see &lt;this&gt;" in told


def test_annotations_are_escaped():
    problem = LintProblem("a", "b,c:d", 3, "up", "100%\nsure", "help")
    told = lint_report.as_github(LintReport(("x",), (problem,)))
    assert told == "::error file=b%2Cc%3Ad,line=3,title=Lint%3A a::100%25%0Asure%0Ahelp\n"


def test_a_missing_program(project, monkeypatch):
    written(project, GOOD)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(squawk.sysconfig, "get_path", lambda _: str(project.directory))
    with pytest.raises(MissingToolError, match="squawk is not installed") as raised:
        found(project)
    assert raised.value.next_step == "pip install 'guvnor-migrations[lint]'"
    assert raised.value.exit_code == 2
    monkeypatch.setitem(sys.modules, "pgparse", None)
    with pytest.raises(MissingToolError, match="pgparse is not installed"):
        found(project)
