"""While somebody thinks about a question: is nobody kept out, and does only what was confirmed happen?"""

from __future__ import annotations

import signal

import pytest

from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, succeeds, versions

PRODUCTION = {"GUVNOR_ENV": "production"}
QUESTION = "Type 'yes' to continue: "
HALF = """
op.execute("CREATE TABLE IF NOT EXISTS t3 (i integer)")
op.create_index_concurrently("i3", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i3 ON t3 (i)")
"""
# Each command that asks, how the database comes to where it does, and where it ends.
ASKING = {
    "down": (("down",), "", AT_1),
    "force": (("force", "1"), "", AT_1),
    "adopt": (("adopt", "--at", "1", "--accept-drift"), "", AT_1),
    "repair": (("repair", "--back", "--no-backup"), "half done", AT_HEAD),
}
INTERRUPTIBLE = [
    ("migrate", "force", "1"),
    ("migrate", "down"),
    ("migrate", "adopt", "--at", "1", "--accept-drift"),
    ("db", "mark", "--not-production"),
]


@pytest.fixture(params=ASKING)
def asking(request, guvnor, project, migrated):
    """A command at its question; call it with what happens meanwhile."""
    words, state, _ = ASKING[request.param]
    if state == "half done":
        project.add_revision(HALF, 'op.execute("DROP TABLE IF EXISTS t3")', python=True)
        migrated.execute("CREATE TABLE t3 (i integer); INSERT INTO t3 VALUES (1), (1)")
        ends(guvnor("migrate", "up", database=migrated, cwd=project.directory), 1, "half done")

    def ask(meanwhile):
        def answer():
            meanwhile()
            return "yes\n"

        return guvnor.terminal(
            "migrate", *words, database=migrated, env=PRODUCTION, cwd=project.directory,
            answers=[(QUESTION, answer)],
        )  # fmt: skip

    return ask


def test_nobody_is_kept_out_at_a_question(request, asking, migrated):
    def meanwhile():
        held = migrated.execute(
            "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
            "WHERE l.locktype = 'advisory' AND d.datname = current_database()"
        )
        assert held == [(0,)]

    shown = asking(meanwhile)
    assert shown.code == 0, shown.out
    assert versions(migrated) == ASKING[request.node.callspec.params["asking"]][2]


def test_what_was_confirmed_is_not_done_to_something_else(asking, migrated):
    moved = "DELETE FROM alembic_version; DELETE FROM schema_migrations"
    shown = asking(lambda: migrated.execute(moved))
    ends(shown, 5, "State: Nothing was ")
    assert versions(migrated) == AT_BASE


def test_another_run_is_not_kept_out(at_version_1, guvnor):
    """A laptop stands at its question; the deploy job comes."""

    def deploy():
        succeeds(guvnor("migrate", "deploy", "--lock-wait", "1s", database=at_version_1), "Deployed 1")
        return "yes\n"

    shown = guvnor.terminal(
        "migrate", "force", "base", database=at_version_1, env=PRODUCTION, answers=[(QUESTION, deploy)]
    )
    ends(shown, 5, "Another session moved the version", "from version 1 to version 2")
    assert versions(at_version_1) == AT_HEAD


def test_another_plan_is_asked_for_anew(at_version_1, guvnor):
    """Somebody applies a revision while the question stands: it would be rolled back, too."""

    def up():
        succeeds(guvnor("migrate", "up", "--lock-wait", "1s", database=at_version_1))
        return "yes\n"

    shown = guvnor.terminal(
        "migrate", "down", "--to", "base", database=at_version_1, env=PRODUCTION,
        answers=[(QUESTION, up), ("down 002 add schedules", ""), (QUESTION, "no\n")],
    )  # fmt: skip
    ends(shown, 4, "Operation cancelled.")
    assert versions(at_version_1) == AT_HEAD


@pytest.mark.parametrize(("typed", "code"), [("\x03", 130), ("\x04", 4), ("no\n", 4), ("\udcff\n", 4)])
@pytest.mark.parametrize("words", INTERRUPTIBLE, ids=" ".join)
def test_whoever_does_not_say_yes_is_told_where_things_are(guvnor, migrated, words, typed, code):
    shown = guvnor.terminal(*words, database=migrated, env=PRODUCTION, answers=[(QUESTION, typed)])
    ends(shown, code, "\n❌ ", "   State: No", "   Next:  ")
    assert versions(migrated) == AT_HEAD


@pytest.mark.parametrize("words", INTERRUPTIBLE, ids=" ".join)
def test_control_c_is_heard_where_the_caller_ignores_it(guvnor, migrated, words):
    """``nohup`` and ``&`` in a script start a command with SIGINT ignored."""
    shown = guvnor.terminal(
        *words, database=migrated, env=PRODUCTION, answers=[(QUESTION, "\x03")], sigint=signal.SIG_IGN
    )
    ends(shown, 130, "\n❌ Interrupted by SIGINT.", "   State: No revision was being run.", "   Next:  ")
    assert versions(migrated) == AT_HEAD
