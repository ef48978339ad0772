"""Does `guvnor restore` bring back what a rollback dropped, row by row, and overwrite nothing else?"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import sample_data
from tests.support.expect import AT_HEAD, ends, succeeds, versions
from tests.support.observe import running

pyrage = pytest.importorskip("pyrage")

PRODUCTION = {"GUVNOR_ENV": "production"}


@pytest.fixture
def filled(migrated):
    sample_data.fill(migrated)
    return migrated


@pytest.fixture
def key(tmp_path):
    """The file of a private key."""
    path = tmp_path / "key.txt"
    path.write_text(f"# a comment\n{pyrage.x25519.Identity.generate()}\n")
    return path


def public(key):
    return str(pyrage.x25519.Identity.from_str(key.read_text().split()[-1]).to_public())


def the_backup(directory):
    (path,) = (path for path in directory.iterdir() if path.suffix != ".sha256")
    return path


def rolled_back(guvnor, database, directory, *words, env=None, cwd=None):
    """Roll back with a backup, and apply again."""
    down = guvnor("migrate", "down", "--backup", directory, *words, database=database, env=env, cwd=cwd)
    succeeds(down, "Backup taken")
    succeeds(guvnor("migrate", "up", database=database, env=env, cwd=cwd))
    return the_backup(directory)


def leftovers(database):
    return database.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('guvnor_restore')"
    )


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_rollback_is_undone_row_by_row(filled, guvnor, directory, key, encrypted):
    before = sample_data.contents(filled)
    recipient = ["--backup-recipient", public(key)] if encrypted else []
    backup = rolled_back(guvnor, filled, directory, *recipient)
    assert sample_data.contents(filled) != before
    flags = ["--backup-identity", key] if encrypted else []
    succeeds(
        guvnor("restore", backup, *flags, database=filled),
        "✅ public.audit_logs: 2 of 2 rows equal",
        "✅ public.incidents.escalation_policy_id: 1 of 1 values equal",
        "✅ Restored: ",
    )
    assert sample_data.contents(filled) == before, "not even a time of change differs"
    assert leftovers(filled) == []
    succeeds(guvnor("schema", "check", database=filled))
    # Once more, nothing is there twice.
    succeeds(guvnor("restore", backup, *flags, database=filled), "✅ Restored: ")
    assert sample_data.contents(filled) == before
    assert versions(filled) == AT_HEAD


def test_what_the_application_has_written_since_stays(filled, guvnor, directory):
    """A row that is there again, a value that was written, a row that was deleted, a missing value."""
    filled.execute(
        "UPDATE incidents SET escalation_policy_id = '00000000-0000-4000-8000-000000000601' "
        "WHERE id::text ~ '000[123]$'"
    )
    backup = rolled_back(guvnor, filled, directory)
    filled.execute(
        """
        INSERT INTO audit_logs (id, entity_type, entity_id, action, actor)
        VALUES ('00000000-0000-4000-8000-000000000801', 'incident', 'x', 'rewritten', 'app');
        INSERT INTO escalation_policies (id, name, team_id, policy_config)
        VALUES ('00000000-0000-4000-8000-000000000699', 'New', 'payments', '{}');
        UPDATE incidents SET escalation_policy_id = '00000000-0000-4000-8000-000000000699'
        WHERE id::text LIKE '%0001';
        UPDATE incidents SET title = 'changed' WHERE id::text LIKE '%0002';
        DELETE FROM incidents WHERE id::text LIKE '%0004';
        """
    )
    policies = (
        "SELECT right(id::text, 1), title, right(escalation_policy_id::text, 3) FROM incidents ORDER BY id"
    )
    for _ in range(2):  # the second time, too
        done = ends(
            guvnor("restore", backup, database=filled),
            6,
            "⚠️  public.audit_logs: 1 of 2 rows equal",
            "1 is different (written since, not by a migration): 00000000-0000-4000-8000-000000000801",
            "⚠️  public.incidents.escalation_policy_id: 2 of 4 values equal; the rows of 1 are gone",
            "1 is different (written since, not by a migration): 00000000-0000-4000-8000-000000000001",
            "What the application has written since is as it left it",
            "SELECT * FROM guvnor_restore.r",
        )
        assert filled.execute("SELECT action FROM audit_logs ORDER BY id") == [("rewritten",), ("create",)]
        assert filled.execute(policies) == [
            ("1", "Checkout is down", "699"),
            ("2", "changed", "601"),
            ("3", "Disk full", "601"),
        ]
    for query in re.findall(r"(SELECT \* FROM guvnor_restore\.\S+ WHERE [^;]+);", done.err):
        assert len(filled.execute(query)) == 1
    # Once the application has given way, the rest comes back, and nothing is left beside.
    filled.execute("DELETE FROM audit_logs WHERE actor = 'app'")
    filled.execute("UPDATE incidents SET escalation_policy_id = NULL WHERE id::text LIKE '%0001'")
    succeeds(guvnor("restore", backup, database=filled), "✅ public.audit_logs: 2 of 2 rows equal")
    assert leftovers(filled) == []


@pytest.fixture
def notes(project, filled, guvnor):
    """Revision 003: a column with a default, values that a rollback overwrites, and a table without a key."""
    project.add_revision(
        """
        CREATE TABLE notes (a integer, b text);
        CREATE TABLE words (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text NOT NULL);
        INSERT INTO words (word) VALUES ('first'), ('second');
        ALTER TABLE signals ADD COLUMN rank integer NOT NULL DEFAULT 7, ADD COLUMN note text;
        UPDATE signals SET note = 'made';
        """,
        """
        UPDATE signals SET title = upper(title);
        ALTER TABLE signals DROP COLUMN rank, DROP COLUMN note;
        UPDATE incidents SET description = upper(description);
        DROP TABLE words;
        DROP TABLE notes;
        """,
    )
    succeeds(guvnor("migrate", "up", database=filled, cwd=project.directory))
    return filled


def test_what_a_migration_has_written_gives_way(notes, guvnor, project, directory):
    """Defaults, filled columns, inserted rows, what the rollback itself and its triggers overwrite."""
    notes.execute(
        """
        INSERT INTO notes VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
        UPDATE words SET word = 'mine' WHERE word = 'second';
        INSERT INTO words (word) VALUES ('third');
        UPDATE signals SET rank = 1, note = 'mine' WHERE source = 'cron';
        """
    )
    before = sample_data.contents(notes)
    backup = rolled_back(guvnor, notes, directory, cwd=project.directory)
    assert sample_data.contents(notes) != before
    for _ in range(2):
        succeeds(
            guvnor("restore", backup, database=notes, cwd=project.directory),
            "✅ public.notes: 3 of 3 rows equal",
            "✅ public.incidents: 4 of 4 rows equal",
            "✅ public.signals.rank: 2 of 2 values equal",
            "✅ public.signals.note: 2 of 2 values equal",
            "✅ public.signals.title: 2 of 2 values equal",
        )
        assert sample_data.contents(notes) == before
    # The identity goes on behind the rows that came back.
    assert notes.execute("INSERT INTO words (word) VALUES ('fourth') RETURNING id") == [(4,)]


ROWS = 3000


def fill_more(database):
    database.execute(
        f"""
        INSERT INTO notes SELECT i % 100, repeat('x', 100) FROM generate_series(1, {ROWS}) AS i;
        INSERT INTO incidents (title, severity, team_id, escalation_policy_id)
        SELECT i::text, 'low', 'x', '00000000-0000-4000-8000-000000000601'
        FROM generate_series(1, {ROWS}) AS i;
        INSERT INTO audit_logs (entity_type, entity_id, action, actor)
        SELECT 'x', i::text, 'x', repeat('y', 200) FROM generate_series(1, {ROWS}) AS i;
        """
    )


def test_a_restore_that_is_killed_goes_on(notes, guvnor, project, directory):
    """At whatever moment: nothing is lost, and nothing is there twice."""
    fill_more(notes)
    before = sample_data.contents(notes)
    words = ("migrate", "down", "--to", "001", "--backup", directory)
    succeeds(guvnor(*words, database=notes, cwd=project.directory))
    succeeds(guvnor("migrate", "up", database=notes, cwd=project.directory))
    backup = the_backup(directory)
    killed = 0
    for seconds in (0.8, 1.2, 1.6, 2.0, 2.5, 3.0):
        process = guvnor.start("restore", backup, database=notes, cwd=project.directory)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
    assert killed
    done = guvnor("restore", backup, database=notes, cwd=project.directory, timeout=120)
    succeeds(done, f"✅ public.notes: {ROWS:,} of {ROWS:,} rows equal", "✅ Restored: ")
    assert sample_data.contents(notes) == before
    assert leftovers(notes) == []


def test_a_signal_is_explained_and_the_same_command_goes_on(notes, guvnor, project, directory):
    fill_more(notes)
    before = sample_data.contents(notes)
    backup = rolled_back(guvnor, notes, directory, cwd=project.directory)
    with notes.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE notes IN SHARE MODE")
        process = guvnor.start("restore", backup, database=notes, cwd=project.directory)
        running(notes, "guvnor_restore.*FOR UPDATE")
        process.send_signal(15)
        _, err = process.communicate(timeout=30)
        cursor.execute("ROLLBACK")
    blocker.close()
    assert process.returncode == 143, err
    assert "What is back stays back" in err
    assert f"guvnor restore {backup}" in err
    succeeds(guvnor("restore", backup, database=notes, cwd=project.directory))
    assert sample_data.contents(notes) == before


def test_a_table_that_is_never_free_ends_the_wait_and_is_named(notes, guvnor, project, directory):
    notes.execute("INSERT INTO notes VALUES (1, 'x')")
    backup = rolled_back(guvnor, notes, directory, cwd=project.directory)
    with notes.connect(application_name="reporter") as blocker, blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE notes IN SHARE MODE")
        failed = guvnor("restore", backup, "--max-wait", "2s", database=notes, cwd=project.directory)
        cursor.execute("ROLLBACK")
    blocker.close()
    ends(failed, 7, "Nothing could be put back into public.notes", "reporter", "it goes on where it stopped")
    succeeds(guvnor("restore", backup, database=notes, cwd=project.directory))


def test_the_application_goes_on_meanwhile(notes, guvnor, project, directory):
    """The values of a busy table come back while it is written to; its triggers fire for the application."""
    fill_more(notes)
    words = ("migrate", "down", "--to", "001", "--backup", directory)
    succeeds(guvnor(*words, database=notes, cwd=project.directory))
    succeeds(guvnor("migrate", "up", database=notes, cwd=project.directory))
    process = guvnor.start("restore", the_backup(directory), database=notes, cwd=project.directory)
    waits, stamped = [], []
    with closing(notes.connect()) as session, session.cursor() as cursor:
        while process.poll() is None:
            began = time.monotonic()
            cursor.execute(
                "UPDATE incidents SET title = title WHERE id::text LIKE '%0002' "
                "RETURNING updated_at = transaction_timestamp()"
            )
            stamped.append(cursor.fetchall())
            waits.append(time.monotonic() - began)
    out, err = process.communicate()
    # The trigger has stamped each row of the rollback's UPDATE; the time of the busy one is now its own.
    assert process.returncode == 6, out + err
    assert f"✅ public.incidents.escalation_policy_id: {ROWS + 1:,} of {ROWS + 1:,} values equal" in out + err
    assert f"⚠️  public.incidents: {ROWS + 3:,} of {ROWS + 4:,} rows equal" in out + err
    assert "(written since, not by a migration): 00000000-0000-4000-8000-000000000002" in out + err
    assert set(map(str, stamped)) == {"[(True,)]"}
    assert max(waits) < 0.5, "beyond the budget of production"


def test_production_asks(filled, guvnor, directory):
    before = sample_data.contents(filled)
    backup = rolled_back(guvnor, filled, directory)
    succeeds(guvnor("db", "mark", database=filled))
    refused = ends(
        guvnor("restore", backup, database=filled),
        4,
        "You are about to restore data from a backup in production.",
        "put back 2 rows of public.audit_logs",
        "put back 1 value of public.incidents.escalation_policy_id",
        f"guvnor restore {backup} --confirm ",
    )
    assert "data loss" not in refused.err
    (confirmation,) = re.findall(r"Plan hash: ([0-9a-f]{16})", refused.err)
    ends(guvnor("restore", backup, "--confirm", "0" * 16, database=filled), 4, "does not belong to this plan")
    shown = guvnor.terminal(
        "restore", backup, database=filled, answers=[("Type 'yes' to continue: ", "no\n")]
    )
    assert shown.code == 4
    assert filled.execute("SELECT count(*) FROM audit_logs") == [(0,)]
    succeeds(guvnor("restore", backup, "--confirm", confirmation, database=filled))
    assert sample_data.contents(filled) == before


def test_a_file_that_cannot_be_used_is_explained_before_anything_is_touched(
    filled, guvnor, directory, key, tmp_path
):
    backup = rolled_back(guvnor, filled, directory, "--backup-recipient", public(key))
    before = sample_data.contents(filled)
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    half = tmp_path / backup.name
    half.write_bytes(backup.read_bytes()[:-20])
    beside = Path(f"{half}.sha256")

    def refused(file, *texts, identity=key, code=3):
        flags = ["--backup-identity", identity] if identity else []
        result = ends(guvnor("restore", file, *flags, database=filled), code, *texts)
        assert "   State: " in result.err
        assert "   Next:  " in result.err

    refused(backup, "no private key is named", "--backup-identity KEY_FILE", identity=None)
    refused(backup, "was encrypted for other keys", identity=other)
    refused(backup, "holds no private key", identity=backup.with_name(f"{backup.name}.sha256"))
    refused(backup, "cannot be read: no such file", identity=tmp_path / "nowhere")
    refused(tmp_path / "nowhere", "cannot be read: no such file")
    refused(half, "is not there, so it is unknown whether the backup is whole", "sha256sum")
    beside.write_text(Path(f"{backup}.sha256").read_text())
    refused(half, "is damaged or incomplete: its checksum is not the one")
    beside.write_text(f"{hashlib.sha256(half.read_bytes()).hexdigest()}  {half.name}\n")
    refused(half, "cannot be decrypted: it is damaged or incomplete")
    foreign = tmp_path / "notes.txt"
    foreign.write_text("hello")
    Path(f"{foreign}.sha256").write_text(f"{hashlib.sha256(b'hello').hexdigest()}  notes.txt\n")
    refused(foreign, "is no backup of guvnor")
    ends(
        guvnor("restore", backup, "--backup-identity", key, "--into", "x", database=filled),
        2,
        "are of no use",
    )
    assert sample_data.contents(filled) == before
    # The setting names the key, too.
    succeeds(guvnor("restore", backup, database=filled, env={"GUVNOR_BACKUP_IDENTITY": str(key)}))


def test_a_key_behind_a_passphrase_is_asked_for_it(filled, guvnor, directory, key, tmp_path):
    backup = rolled_back(guvnor, filled, directory, "--backup-recipient", public(key))
    locked = tmp_path / "locked.age"
    locked.write_bytes(pyrage.passphrase.encrypt(key.read_bytes(), "open sesame"))
    words = ("restore", backup, "--backup-identity", locked)
    ends(guvnor(*words, database=filled), 3, "there is no terminal to ask on")
    question = "locked.age: "
    wrong = guvnor.terminal(*words, database=filled, answers=[(question, "open barley\n")])
    assert wrong.code == 3
    assert "is wrong" in wrong.plain
    right = guvnor.terminal(*words, database=filled, answers=[(question, "open sesame\n")])
    assert right.code == 0, right.plain
    assert "sesame" not in right.plain


def test_what_is_not_there_any_more_is_named(notes, guvnor, project, directory):
    notes.execute("INSERT INTO notes VALUES (1, 'x')")
    succeeds(guvnor("migrate", "down", "--backup", directory, database=notes, cwd=project.directory))
    backup = the_backup(directory)
    ends(
        guvnor("restore", backup, database=notes, cwd=project.directory),
        3,
        "There is no table public.notes, of which the backup holds 1 row of public.notes",
        "no longer has column rank",
        "Next:  guvnor migrate up",
    )
    succeeds(guvnor("migrate", "up", database=notes, cwd=project.directory))
    notes.execute("ALTER TABLE signals DROP COLUMN rank")
    ends(
        guvnor("restore", backup, database=notes, cwd=project.directory),
        3,
        "Table public.signals no longer has column rank",
        "Nothing was restored",
        "by a new revision",
    )
    notes.execute("ALTER TABLE signals ADD COLUMN rank integer NOT NULL DEFAULT 7")
    notes.execute("ALTER TABLE notes ALTER COLUMN b TYPE integer USING 1")
    ends(
        guvnor("restore", backup, database=notes, cwd=project.directory),
        1,
        "What the backup holds of public.notes does not fit its type there",
        "it goes on",
    )
    notes.execute("ALTER TABLE notes ALTER COLUMN b TYPE text")
    notes.execute("ALTER TABLE notes ADD CONSTRAINT c CHECK (b <> 'x')")
    ends(
        guvnor("restore", backup, database=notes, cwd=project.directory),
        6,
        "1 is missing",
        'violates check constraint "c"',
    )
    notes.execute("ALTER TABLE notes DROP CONSTRAINT c")
    succeeds(guvnor("restore", backup, database=notes, cwd=project.directory))
    assert notes.execute("SELECT * FROM notes") == [(1, "x")]


def test_a_full_disk_of_the_server_is_explained(notes, guvnor, project, directory):
    notes.execute("INSERT INTO notes VALUES (1, 'x')")
    backup = rolled_back(guvnor, notes, directory, cwd=project.directory)
    notes.execute(
        """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION full_disk();
        ALTER TABLE notes ENABLE ALWAYS TRIGGER full_disk;
        """
    )
    failed = guvnor("restore", backup, database=notes, cwd=project.directory)
    ends(failed, 1, "The disk of the server is full", "What is back stays back", "once there is room")
    notes.execute("DROP TRIGGER full_disk ON notes")
    succeeds(guvnor("restore", backup, database=notes, cwd=project.directory))
    assert notes.execute("SELECT * FROM notes") == [(1, "x")]


def test_the_result_can_be_read_by_a_program(filled, guvnor, directory):
    backup = rolled_back(guvnor, filled, directory)
    found = json.loads(succeeds(guvnor("restore", backup, "--json", database=filled)).out)
    assert found["exit_code"] == 0
    assert found["backup"] == str(backup)
    assert {"name": "public.audit_logs", "rows": 2, "equal": 2}.items() <= found["parts"][1].items()
