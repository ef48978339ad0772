"""A revision that may make the application wait for longer: shown with its reason, confirmed, recorded."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.expect import AT_HEAD, ends, succeeds, versions

PRODUCTION = {"GUVNOR_ENV": "production"}
QUESTION = "Type 'yes' to continue: "
WARNING = "⚠️  You are about to apply a migration that may make the application wait in production.\n"
pytestmark = pytest.mark.usefixtures("revision")
WHY = "regions has 40 rows"
SENTENCE = f"Revision 003 may make the application wait for up to 5s: {WHY}"


@pytest.fixture
def revision(project):
    """Revision 003, and a function that gives it another limit or reason."""
    path = project.add_revision("CREATE TABLE IF NOT EXISTS a ()", "DROP TABLE IF EXISTS a")
    source = path.read_text()

    def says(text):
        path.write_text(f"{source}\n\n{text}\n")

    says(f'max_stall = "5s"  # {WHY}')
    return says


def plan_hash(text):
    found = re.search(r"Plan hash: ([0-9a-f]{16})", text)
    assert found, text
    return found[1]


def test_the_plan_shows_it_and_its_hash_covers_it(migrated, guvnor, project, revision):
    def plan(*flags):
        return succeeds(guvnor("migrate", "plan", *flags, database=migrated, cwd=project.directory)).out

    text = plan()
    assert f"⚠️  may make the application wait for up to 5s: {WHY}" in text
    (step,) = json.loads(plan("--json"))["steps"]
    assert step["max_stall"] == {"seconds": 5.0, "reason": WHY}
    hashes = {plan_hash(text)}
    for says in (f'max_stall = "6s"  # {WHY}', 'max_stall = "5s"  # another reason', ""):
        revision(says)
        hashes.add(plan_hash(plan()))
    assert len(hashes) == 4
    (step,) = json.loads(plan("--json"))["steps"]
    assert step["max_stall"] is None
    assert "application wait" not in plan()


def test_it_is_asked_for_in_production_on_a_terminal(migrated, guvnor, project):
    here = {"database": migrated, "cwd": project.directory, "env": PRODUCTION}
    shown = guvnor.terminal("migrate", "up", answers=[(QUESTION, "no\n")], **here)
    ends(shown, 4, WARNING, f"   Waits:     {SENTENCE}", "Operation cancelled.")
    assert versions(migrated) == AT_HEAD
    shown = guvnor.terminal("migrate", "up", answers=[(QUESTION, "yes\n")], **here)
    succeeds(shown, WARNING, "✅ Applied 003")
    assert "data loss" not in shown.out


@pytest.mark.parametrize("command", ["up", "deploy"])
def test_without_a_terminal_only_the_hash_of_this_very_plan_passes(
    migrated, guvnor, project, revision, command
):
    here = {"database": migrated, "cwd": project.directory, "env": PRODUCTION}
    refused = ends(guvnor("migrate", command, **here), 4, WARNING, SENTENCE, "--confirm")
    confirm = ("--confirm", plan_hash(refused.err))
    revision('max_stall = "50s"  # not what was confirmed')
    ends(guvnor("migrate", command, *confirm, **here), 4, "does not belong to this plan")
    assert versions(migrated) == AT_HEAD
    revision(f'max_stall = "5s"  # {WHY}')
    succeeds(guvnor("migrate", command, *confirm, **here), "✅ Applied 003")
    ends(guvnor("migrate", "down", "--no-backup", **here), 4, "rollback a migration", SENTENCE)


def test_plain_alembic_asks_for_it_too(migrated, alembic, project):
    here = {"database": migrated, "cwd": project.directory, "env": PRODUCTION}
    refused = ends(alembic("upgrade", "head", **here), 4, WARNING, SENTENCE)
    assert versions(migrated) == AT_HEAD
    succeeds(alembic("-x", f"confirm={plan_hash(refused.err)}", "upgrade", "head", **here), "✅ Applied 003")


def test_a_loss_is_still_called_one(migrated, guvnor, project):
    project.add_revision("DROP TABLE IF EXISTS signals CASCADE", "SELECT 1")
    migrated.execute("INSERT INTO signals (source, title, severity) VALUES ('a', 'b', 'low')")
    refused = guvnor("migrate", "up", database=migrated, cwd=project.directory, env=PRODUCTION)
    ends(refused, 4, "apply a migration that drops data", "This may result in data loss.", SENTENCE)


def test_the_history_has_it_with_each_attempt(migrated, guvnor, project, revision):
    here = {"database": migrated, "cwd": project.directory}
    revision(f"# {WHY},\n# and is read once a day\nmax_stall = '5s'")
    succeeds(guvnor("migrate", "up", **here), "✅ Applied 003")
    note = f"max_stall 5s: {WHY}, and is read once a day"
    entries = json.loads(succeeds(guvnor("migrate", "history", "--json", **here)).out)
    assert [entry["note"] for entry in entries] == [None, None, note]
    assert note in succeeds(guvnor("migrate", "history", **here)).out


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ('max_stall = "5s"', ["does not say why it needs max_stall = '5s'", 'max_stall = "5s"  # why']),
        ('max_stall = "off"  # why not', ["says max_stall = 'off'", 'max_stall = "5s"  # why']),
        ('max_stall = "10ms"  # quick', ["says max_stall = '10ms'", "50ms is the shortest"]),
    ],
)
def test_what_it_does_not_say_properly_stops_the_run_before_it(
    migrated, guvnor, alembic, project, revision, says, words
):
    revision(says)
    here = {"database": migrated, "cwd": project.directory}
    for result in (guvnor("migrate", "up", **here), alembic("upgrade", "head", **here)):
        ends(result, 3, "003_test.py", *words, "$EDITOR")
    ends(guvnor("migrate", "plan", **here), 3, "003_test.py", *words)
    assert versions(migrated) == AT_HEAD
