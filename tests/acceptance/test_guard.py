"""Is production guarded, wherever it is reached from: words, answers, confirmations, marks?"""

from __future__ import annotations

import json
import re

import pytest

from tests.support.expect import AT_1, AT_BASE, AT_HEAD, ends, events, succeeds, versions

PRODUCTION = {"GUVNOR_ENV": "production"}
WARNING = "⚠️  You are about to rollback a migration in production. This may result in data loss."
FORCE = "⚠️  You are about to set the version of a database, whatever its schema is, in production."
QUESTION = "Type 'yes' to continue: "


def plan_hash(text: str) -> str:
    found = re.search(r"Plan hash: ([0-9a-f]{16})", text)
    assert found, text
    return found[1]


def test_without_a_terminal_only_the_hash_of_this_very_plan_passes(server, template_at_head, guvnor):
    one, other = server.create_database(template_at_head), server.create_database(template_at_head)
    before = events(one)
    refused = ends(guvnor.process("migrate", "down", database=one, env=PRODUCTION, input="yes\n"), 4, WARNING)
    assert QUESTION not in refused.err
    for part in (one.name, "002 → 001", "down 002 add schedules", "GUVNOR_ENV is production"):
        assert part in refused.err
    confirmation = plan_hash(refused.err)
    assert f"--confirm {confirmation}" in refused.err
    assert (versions(one), events(one)) == (AT_HEAD, before)

    def down(database, *words):
        return guvnor("migrate", "down", *words, "--confirm", confirmation, database=database, env=PRODUCTION)

    ends(down(other), 4, "does not belong to this plan")
    ends(down(one, "--to", "base"), 4, "does not belong to this plan")
    assert (versions(one), versions(other)) == (AT_HEAD, AT_HEAD)
    succeeds(down(one), "Rolled back 002")
    assert versions(one) == AT_1
    ends(down(one), 4, "does not belong to this plan")


@pytest.mark.parametrize(
    ("answer", "code"),
    [("yes\n", 0), ("no\n", 4), ("\n", 4), ("YES\n", 4), ("y\n", 4), ("\x04", 4), ("\x03", 130)],
    ids=["yes", "no", "nothing", "YES", "y", "end", "interrupt"],
)
def test_on_a_terminal_only_yes_passes(migrated, guvnor, answer, code):
    before = events(migrated)
    result = guvnor.terminal(
        "migrate", "down", database=migrated, env=PRODUCTION, answers=[(QUESTION, answer)]
    )
    ends(result, code, WARNING)
    assert versions(migrated) == (AT_1 if code == 0 else AT_HEAD)
    if code:
        assert events(migrated) == before
    if code == 4:
        assert "Operation cancelled." in result.out


def test_up_asks_nothing(at_version_1, guvnor):
    result = succeeds(guvnor("migrate", "up", database=at_version_1, env=PRODUCTION))
    assert "You are about to" not in result.err


def test_the_first_production_run_marks_the_database(database, guvnor):
    succeeds(guvnor("migrate", "up", "--to", "1", database=database))
    found = json.loads(succeeds(guvnor("migrate", "status", "--json", database=database)).out)
    assert not found["production"]
    succeeds(guvnor("migrate", "up", database=database, env=PRODUCTION))
    # From here on, a laptop without that setting is asked too.
    status = succeeds(guvnor("migrate", "status", database=database))
    assert "Environment: production (the database was marked as production on 20" in status.out
    ends(guvnor("migrate", "down", database=database), 4, WARNING, "the database was marked as production")
    assert versions(database) == AT_HEAD


def test_a_database_is_marked_and_unmarked(server, migrated, guvnor):
    succeeds(guvnor("db", "mark", database=migrated), "✅ The database is marked as production")
    ends(guvnor("migrate", "down", database=migrated), 4, WARNING)

    # A copy has another oid, a restored one too: it is not production.
    copy = server.create_database(migrated)
    assert not json.loads(succeeds(guvnor("migrate", "status", "--json", database=copy)).out)["production"]
    succeeds(guvnor("migrate", "down", database=copy))
    assert versions(copy) == AT_1

    refused = ends(guvnor("db", "mark", "--not-production", database=migrated), 4)
    ends(guvnor("migrate", "down", "--confirm", plan_hash(refused.err), database=migrated), 4)
    shown = guvnor.terminal(
        "db", "mark", "--not-production", database=migrated, answers=[(QUESTION, "yes\n")]
    )
    succeeds(shown, "no longer marked")
    succeeds(guvnor("migrate", "down", database=migrated))
    assert versions(migrated) == AT_1


def test_plain_alembic_is_guarded_too(migrated, alembic):
    refused = ends(alembic("downgrade", "-1", database=migrated, env=PRODUCTION), 4, WARNING)
    stamp = ends(
        alembic("stamp", "001", database=migrated, env=PRODUCTION),
        4,
        FORCE,
    )
    ends(alembic("stamp", "base", "--purge", database=migrated, env=PRODUCTION), 2, "stamp --purge")
    assert versions(migrated) == AT_HEAD
    confirm = f"confirm={plan_hash(stamp.err)}"
    ends(alembic("-x", confirm, "downgrade", "-1", database=migrated, env=PRODUCTION), 4)
    confirm = f"confirm={plan_hash(refused.err)}"
    succeeds(alembic("-x", confirm, "downgrade", "-1", database=migrated, env=PRODUCTION))
    assert versions(migrated) == AT_1
    shown = alembic.terminal(
        "downgrade", "base", database=migrated, env=PRODUCTION, answers=[(QUESTION, "yes\n")]
    )
    succeeds(shown, WARNING)
    assert versions(migrated) == AT_BASE


def test_force_is_guarded(migrated, guvnor):
    before = events(migrated)
    refused = ends(guvnor("migrate", "force", "1", database=migrated, env=PRODUCTION), 4, FORCE, "002 → 001")
    for answer, code in (("no\n", 4), ("\x03", 130)):
        shown = guvnor.terminal(
            "migrate", "force", "1", database=migrated, env=PRODUCTION, answers=[(QUESTION, answer)]
        )
        assert shown.code == code, shown.out
    assert (versions(migrated), events(migrated)) == (AT_HEAD, before)
    confirmation = plan_hash(refused.err)
    ends(guvnor("migrate", "force", "base", "--confirm", confirmation, database=migrated, env=PRODUCTION), 4)
    succeeds(
        guvnor("migrate", "force", "1", database=migrated, env={**PRODUCTION, "GUVNOR_CONFIRM": confirmation})
    )
    assert versions(migrated) == AT_1
