"""Does `guvnor restore --into` restore the whole database into a new one, and only into a new one?"""

from __future__ import annotations

import subprocess
import time

import psycopg2
import pytest

from guvnor.backup import pg_dump
from guvnor.backup.opened import open_backup
from guvnor.commands import restore_whole
from tests.support import sample_data
from tests.support.expect import ends, succeeds, versions
from tests.support.server import Database

pyrage = pytest.importorskip("pyrage")


@pytest.fixture
def filled(migrated, tools):  # noqa: ARG001 (skips where there is no pg_dump for this server)
    sample_data.fill(migrated)
    return migrated


@pytest.fixture
def backed_up(filled, guvnor, directory):
    """Backs the whole database up by the deploy job; it has something to apply."""

    def back_up(*flags):
        succeeds(guvnor("migrate", "down", database=filled))
        sample_data.fill(filled)
        succeeds(guvnor("migrate", "deploy", "--backup", directory, *flags, database=filled), "backup")
        (path,) = (path for path in directory.iterdir() if path.suffix != ".sha256")
        return path

    return back_up


@pytest.fixture
def new(server):
    """A database that does not exist yet, and is dropped when the test ends."""
    made = server.create_database()
    server.execute(f'DROP DATABASE "{made.name}"')
    return made


def described(database: Database):
    return sample_data.contents(database), versions(database)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_everything_is_in_the_new_database(filled, backed_up, guvnor, new, tmp_path, encrypted):
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(f"{identity}\n")
    backup = backed_up(*(["--backup-recipient", str(identity.to_public())] if encrypted else []))
    succeeds(guvnor("migrate", "down", database=filled))  # as the database was, but for its sequences
    before = described(filled)
    filled.execute("DELETE FROM signals")
    flags = ["--backup-identity", key] if encrypted else []
    ends(guvnor("restore", backup, *flags, database=filled), 2, "--into DATABASE")
    succeeds(
        guvnor("restore", backup, "--into", new.name, *flags, database=filled, timeout=180),
        "✅ public.incidents: 4 of 4 rows equal",
        f"✅ Restored into database {new.name}: ",
    )
    assert described(new) == before
    assert new.execute("SELECT to_regnamespace('guvnor_restoring')") == [(None,)]
    assert filled.execute("SELECT count(*) FROM signals") == [(0,)]
    succeeds(guvnor("migrate", "up", database=new))
    # It has objects now, and so has the one that was backed up.
    for name in (new.name, filled.name):
        refused = guvnor("restore", backup, "--into", name, *flags, database=filled)
        ends(refused, 3, f"Database {name} has ", "objects", "Nothing was restored", "another name")


def test_a_killed_restore_begins_again_and_ends(filled, backed_up, guvnor, new):
    filled.execute(
        "INSERT INTO signals (source, title, severity, payload) "
        "SELECT 'x', i::text, 'low', '{}' FROM generate_series(1, 5000) AS i"
    )
    backup = backed_up()
    succeeds(guvnor("migrate", "down", database=filled))
    before = described(filled)
    killed = 0
    for seconds in (0.2, 0.4, 0.8, 1.6):
        process = guvnor.start("restore", backup, "--into", new.name, database=filled)
        try:
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
    assert killed
    done = guvnor("restore", backup, "--into", new.name, database=filled, timeout=180)
    if done.code != 3:  # the last one that was killed may have ended
        succeeds(done, "✅ public.signals: 5,002 of 5,002 rows equal")
    assert described(new) == before
    assert new.execute("SELECT to_regnamespace('guvnor_restoring')") == [(None,)]


def test_rows_that_differ_are_named(filled, backed_up, guvnor, new):
    """A rule of the new database meddles: the comparison trusts nobody."""
    backup = backed_up()
    process = guvnor.start("restore", backup, "--into", new.name, database=filled)
    meddled = False
    while process.poll() is None and not meddled:
        try:
            meddled = bool(new.execute("UPDATE signals SET title = 'x' WHERE source = 'cron' RETURNING 1"))
        except psycopg2.Error:
            time.sleep(0.01)
    out, err = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the restore was quicker than the hand that meddles")
    assert process.returncode == 6, out + err
    assert "⚠️  public.signals: 1 of 2 rows equal" in out
    assert "1 of the backup are not there: (00000000-0000-4000-8000-000000000202" in out
    assert "do not use it" in err


def test_what_stands_in_the_way_is_explained(filled, backed_up, guvnor, new, server):
    backup = backed_up()
    words = ("restore", backup, "--into", new.name)
    # A role without CREATEDB is told what an administrator has to do.
    role = server.create_role()
    filled.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role.name}"')
    refused = ends(
        guvnor(*words, "--no-owner", database=filled.dsn_with(role)),
        3,
        f"The role {role.name} may not make database {new.name}",
        "TEMPLATE template0",
        "-- as an administrator",
    )
    assert f"OWNER {role.name}" in refused.err
    # The role that owned an object of the backup does not exist on this server.
    stranger = server.create_role()
    filled.execute(f'ALTER TABLE events OWNER TO "{stranger.name}"')
    for path in backup.parent.iterdir():
        path.unlink()
    again = backed_up()
    filled.execute("ALTER TABLE events OWNER TO CURRENT_USER")
    server.execute(f'DROP ROLE "{stranger.name}"')
    ends(
        guvnor("restore", again, "--into", new.name, database=filled),
        3,
        f"The roles that own objects of the backup do not exist on this server: {stranger.name}",
        f'CREATE ROLE "{stranger.name}"',
        "--no-owner",
    )
    succeeds(guvnor("restore", again, "--into", new.name, "--no-owner", database=filled, timeout=180))
    with pytest.raises(psycopg2.errors.UndefinedObject):
        server.execute(f'DROP ROLE "{stranger.name}"')


def test_no_pg_restore_is_said(backed_up, monkeypatch):
    backup = backed_up()
    opened = open_backup(backup, None, lambda _: None)
    monkeypatch.setattr(pg_dump, "_directories", list)
    with pytest.raises(restore_whole.NewDatabaseError) as raised:
        restore_whole._find_tools(opened, 15)
    assert "There is no pg_dump here" in raised.value.message
    assert "postgresql-client-15" in raised.value.next_step
    assert raised.value.state == "Nothing was restored; nothing was changed."
