"""Is a backup whole, private and restorable, does a restore bring everything back, and is a failure clean?"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from guvnor import postgres
from guvnor.backup import file, pg_dump, take
from guvnor.backup.file import BackupCheckError, BackupError
from guvnor.backup.take import BackupOptions
from guvnor.bookkeeping import state
from guvnor.database import Database
from guvnor.errors import GuvnorError
from guvnor.migrate import signals
from guvnor.revisions import plan as planning
from guvnor.revisions.script import script_directory
from guvnor.schema import rehearsal
from guvnor.schema.snapshot import Object
from tests.support import sample_data
from tests.support.command import CHECKOUT, FROZEN
from tests.support.expect import AT_1, AT_HEAD, ends, succeeds, tables, versions
from tests.support.facts import BOOKKEEPING

pyrage = pytest.importorskip("pyrage")

SECRET = "Checkout is down"  # a title in the sample data

AGE = """\
import argparse, sys
import pyrage
words = argparse.ArgumentParser()
words.add_argument("--decrypt", action="store_true", required=True)
words.add_argument("--identity", required=True)
words.add_argument("--output", default="/dev/stdout")
words.add_argument("file")
given = words.parse_args()
key = pyrage.x25519.Identity.from_str(open(given.identity).read().split()[-1])
with open(given.file, "rb") as source, open(given.output, "wb") as target:
    pyrage.decrypt_io(source, target, [key])
"""


@pytest.fixture
def filled(migrated, tools):  # noqa: ARG001 (skips where there is no pg_dump for this server)
    sample_data.fill(migrated)
    return migrated


@pytest.fixture
def key(tmp_path):
    """The file of a private key."""
    path = tmp_path / "key.txt"
    path.write_text(f"# a comment\n{pyrage.x25519.Identity.generate()}\n")
    return path


def identity(key):
    return pyrage.x25519.Identity.from_str(key.read_text().split()[-1])


def options(directory, key=None, **others):
    return BackupOptions(directory, (str(identity(key).to_public()),) if key else (), **others)


def quiet(_progress):
    pass


def dropped_by_a_rollback(connection, directory=FROZEN):
    """What the last revision's way back drops, as a rollback finds it out."""
    script = script_directory(directory / "alembic.ini")
    current = state.read(connection, max_wait=1)
    revisions = script._downgrade_revs("-1", current.alembic)
    plan = planning.make(postgres.identify(connection), current.version, revisions)
    return [
        item
        for effect in rehearsal.effects(connection, script, plan.current, plan.steps)
        for item in effect.dropped
    ]


def of_what_is_dropped(database, options, objects=None):
    with contextlib.closing(postgres.connect(database.dsn)) as connection:
        found = dropped_by_a_rollback(connection) if objects is None else objects
        return take.back_up_dropped(connection, found, options, quiet)


def shell_blocks(section):
    """The blocks of a section of the page about restoring that hold commands without a prompt."""
    text = (CHECKOUT / "docs" / "restore.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"```bash\n(.*?)```", found, re.DOTALL)


def of_a_rollback():
    """Those that put back what a rollback dropped: plain and encrypted."""
    return shell_blocks("Without guvnor")[-2:]


@pytest.fixture
def by_the_book(tools, tmp_path):
    """Runs commands of the page about restoring."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "age.py").write_text(AGE)
    python = shlex.quote(sys.executable)
    for name, words in (
        ("python3", python),
        ("guvnor", f"{python} -m guvnor"),
        ("age", f"{python} {shlex.quote(str(tmp_path / 'age.py'))}"),
    ):
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o700)
    if shutil.which("bash") is None or shutil.which("sha256sum") is None:
        pytest.skip("there is no bash or no sha256sum")

    def run(commands, database, **variables):
        with contextlib.closing(postgres.connect(database.dsn)) as connection:
            environment = pg_dump.connection_environment(connection)
        environment.pop("PGDATABASE")
        environment |= {name: str(value) for name, value in variables.items()}
        environment |= {"GUVNOR_STORAGE_DSN": database.dsn, "database": database.name}
        environment["ALEMBIC_CONFIG"] = str(FROZEN / "alembic.ini")
        environment["PATH"] = f"{programs}:{tools.directory}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def described(database):
    """The rows of every table, the bookkeeping's too."""
    everything = sample_data.contents(database)
    everything["versions"] = [versions(database)]
    return everything


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_restore_brings_back_every_row(server, filled, directory, key, by_the_book, guvnor, encrypted):
    before = described(filled)
    assert all(before.values()), "every table shall have rows"
    taken = take.back_up_database(Database(filled.dsn), options(directory, key if encrypted else None), quiet)
    filled.execute("DROP TABLE events; DELETE FROM signals; UPDATE incidents SET title = 'gone'")

    restored = server.create_database()
    server.execute(f'DROP DATABASE "{restored.name}"')  # the page makes it
    check, _, *whole = shell_blocks("Without guvnor")
    by_the_book(check, filled, backup=taken.path)
    commands = whole[int(encrypted)]
    by_the_book(commands, filled, backup=taken.path, restored=restored.name, key=key)

    assert described(restored) == before
    succeeds(guvnor("schema", "check", database=restored))
    succeeds(guvnor("migrate", "up", database=restored), "No change: version 2")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_rollback_is_undone_with_its_rows_and_values(
    filled, directory, key, by_the_book, guvnor, encrypted
):
    """In production, from the command to the last value."""
    before = described(filled)
    env = {"GUVNOR_ENV": "production", "GUVNOR_BACKUP_DIR": str(directory)}
    if encrypted:
        env["GUVNOR_BACKUP_RECIPIENTS"] = str(identity(key).to_public())
    refused = ends(guvnor("migrate", "down", database=filled, env=env), 4)
    (confirmation,) = re.findall(r"Plan hash: ([0-9a-f]{16})", refused.err)
    succeeds(guvnor("migrate", "down", "--confirm", confirmation, database=filled, env=env))
    assert versions(filled) == AT_1
    assert "audit_logs" not in tables(filled)
    (path,) = (path for path in directory.iterdir() if path.suffix != ".sha256")
    assert path.name.endswith("-dropped.sql.gz.age" if encrypted else "-dropped.sql.gz")

    succeeds(guvnor("migrate", "up", database=filled))
    printed = by_the_book(of_a_rollback()[int(encrypted)], filled, backup=path, key=key)
    assert printed.endswith("COMMIT\n")

    assert versions(filled) == AT_HEAD
    assert described(filled) == before
    # The trigger that stamps the time of a change was silent, and is at work again.
    succeeds(guvnor("schema", "check", database=filled))


def test_an_encrypted_backup_is_not_read_without_the_key(
    filled, directory, key, tools, by_the_book, tmp_path
):
    plain = take.back_up_database(Database(filled.dsn), options(directory), quiet)
    both = [
        take.back_up_database(Database(filled.dsn), options(directory, key), quiet),
        of_what_is_dropped(filled, options(directory, key)),
    ]
    listed = [tools.directory / "pg_restore", "--list"]
    assert subprocess.run([*listed, plain.path], capture_output=True, check=False).returncode == 0
    stranger = pyrage.x25519.Identity.generate()
    for taken in both:
        assert taken.encrypted
        assert taken.path.suffix == ".age"
        content = taken.path.read_bytes()
        for word in (b"PGDMP", b"\x1f\x8b\x08", b"audit_logs", SECRET.encode()):
            assert word not in content
        assert subprocess.run([*listed, taken.path], capture_output=True, check=False).returncode != 0
        with pytest.raises(pyrage.DecryptError):
            pyrage.decrypt(content, [stranger])
        with pytest.raises(pyrage.DecryptError):  # nor is half of it taken for the whole
            pyrage.decrypt(content[:-1], [identity(key)])
    _, decrypt, *_ = shell_blocks("Without guvnor")
    by_the_book(decrypt, filled, backup=both[0].path, key=key)
    opened = tmp_path / "decrypted"
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600
    assert subprocess.run([*listed, opened], capture_output=True, check=False).returncode == 0


def test_a_backup_is_encrypted_for_an_ssh_key(filled, directory, tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen")
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    recipient = path.with_suffix(".pub").read_text()
    taken = take.back_up_database(Database(filled.dsn), BackupOptions(directory, (recipient,)), quiet)
    key = pyrage.ssh.Identity.from_buffer(path.read_bytes())
    assert pyrage.decrypt(taken.path.read_bytes(), [key]).startswith(b"PGDMP")


def test_what_is_written_is_private_named_and_summed(filled, directory, key):
    before = os.umask(0)
    try:
        taken = [
            take.back_up_database(Database(filled.dsn), options(directory), quiet),
            take.back_up_database(Database(filled.dsn), options(directory, key), quiet),
            of_what_is_dropped(filled, options(directory)),
        ]
    finally:
        os.umask(before)
    assert len(list(directory.iterdir())) == 2 * len(taken), "a file and its checksum each, and nothing else"
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    ends = (r"-002\.dump", r"-002\.dump\.age", r"-002-dropped\.sql\.gz")
    for one, end in zip(taken, ends, strict=True):
        assert re.fullmatch(rf"{filled.name}-\d{{8}}T\d{{6}}\.\d{{3}}Z{end}", one.path.name)
        content = one.path.read_bytes()
        assert one.bytes == len(content)
        assert one.sha256 == hashlib.sha256(content).hexdigest()
        beside = Path(f"{one.path}.sha256").read_text()
        assert beside == f"{one.sha256}  {one.path.name}\n"
        assert one.seconds > 0


def test_progress_is_reported(filled, directory):
    seen = []
    taken = take.back_up_database(Database(filled.dsn), options(directory), seen.append)
    assert seen
    assert all(progress.what == f"backup of database {filled.name}" for progress in seen)
    assert all(progress.done <= taken.bytes for progress in seen)
    assert seen[0].total > taken.bytes


def waiting(server, database):
    """The server processes of a pg_dump that waits for a lock."""
    found = server.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'pg_dump' "
        "AND wait_event_type = 'Lock'",
        [database.name],
    )
    return [pid for (pid,) in found]


class Stopped:
    """A backup in a thread, at a moment when pg_dump waits for a lock that the test holds."""

    def __init__(self, server, database, options):
        self.blocker = database.connect()
        self.blocker.autocommit = False
        with self.blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
        self.error = self.taken = None
        self._thread = threading.Thread(target=self._run, args=(database.dsn, options))
        self._thread.start()
        deadline = time.monotonic() + 30
        while not waiting(server, database):
            assert time.monotonic() < deadline, "pg_dump does not come to wait for the lock"
            assert self._thread.is_alive(), self.error
            time.sleep(0.02)

    def _run(self, dsn, options):
        try:
            self.taken = take.back_up_database(Database(dsn), options, quiet)
        except GuvnorError as error:
            self.error = error

    def go_on(self):
        self.blocker.rollback()
        self.end()

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.blocker.rollback()


def children():
    """The programs that this process has started, with their command lines."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    found = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return {int(pid): words[0] for pid, parent, *words in found if words and int(parent) == os.getpid()}


def test_the_process_list_shows_no_connection(server, filled, directory, key):
    password = psycopg2_password(filled)
    stopped = Stopped(server, filled, options(directory, key))
    started = children()
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    (unfinished,) = directory.iterdir()
    mode = stat.S_IMODE(unfinished.stat().st_mode)
    stopped.go_on()
    assert stopped.error is None
    assert mode == 0o600
    assert any("pg_dump" in words for words in started.values())
    assert filled.name not in "\n".join(started.values())
    if password:
        assert password not in listed.stdout
    # Everything else comes after a file that other processes may see.
    assert {path.name for path in directory.iterdir()} == {
        stopped.taken.path.name,
        f"{stopped.taken.path.name}.sha256",
    }


def psycopg2_password(database):
    with contextlib.closing(postgres.connect(database.dsn)) as connection:
        return connection.info.password


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_killed_pg_dump_leaves_nothing(server, filled, directory, key, encrypted):
    stopped = Stopped(server, filled, options(directory, key if encrypted else None))
    (pid,) = [pid for pid, words in children().items() if "pg_dump" in words]
    os.kill(pid, 9)
    stopped.end()
    assert isinstance(stopped.error, BackupError)
    assert stopped.error.exit_code == 1
    assert "pg_dump was killed by signal 9" in stopped.error.message
    assert "removed" in stopped.error.state
    assert list(directory.iterdir()) == []


def test_a_lost_connection_leaves_nothing(server, filled, directory):
    stopped = Stopped(server, filled, options(directory))
    (pid,) = waiting(server, filled)
    server.execute("SELECT pg_terminate_backend(%s)", [pid])
    stopped.end()
    assert "pg_dump failed with exit code 1" in stopped.error.message
    assert "terminating connection" in stopped.error.message
    assert list(directory.iterdir()) == []


def test_an_interruption_leaves_nothing(filled, directory, key):
    def interrupt(_progress):
        raise KeyboardInterrupt

    for wanted in (options(directory), options(directory, key)):
        with pytest.raises(KeyboardInterrupt):
            take.back_up_database(Database(filled.dsn), wanted, interrupt)
        assert list(directory.iterdir()) == []
    assert not any("pg_" in words for words in children().values())


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_signal_ends_pg_dump_and_leaves_nothing(server, filled, directory, key, encrypted):
    blocker = filled.connect()
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")

    def send():
        deadline = time.monotonic() + 30
        while not waiting(server, filled) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    with signals.interruptible("Nothing was changed."):
        sender.start()
        with pytest.raises(signals.Interrupt):
            take.back_up_database(Database(filled.dsn), options(directory, key if encrypted else None), quiet)
    sender.join()
    assert list(directory.iterdir()) == []
    assert not any("pg_" in words for words in children().values())


def random_rows(database):
    """Rows that no compression makes small: about 2 MB."""
    database.execute(
        "INSERT INTO audit_logs (entity_type, entity_id, action, actor, changes) "
        "SELECT 'x', 'x', 'x', 'x', to_jsonb(string_agg(md5(random()::text), '')) "
        "FROM generate_series(1, 60) AS r, generate_series(1, 1000) GROUP BY r"
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    path = tmp_path / "small"
    path.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can make a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system here: {mounted.stderr}")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def small_files(directory):
    """A limit of 256 kB on the size of every file that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, before[1]))
    yield directory
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("full", ["small_disk", "small_files"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_full_disk_leaves_nothing(filled, key, request, full, encrypted):
    random_rows(filled)
    directory = request.getfixturevalue(full)
    wanted = options(directory, key if encrypted else None)
    for back_up in (
        lambda: take.back_up_database(Database(filled.dsn), wanted, quiet),
        lambda: of_what_is_dropped(filled, wanted),
    ):
        with pytest.raises(BackupError, match="no room left") as raised:
            back_up()
        assert raised.value.exit_code == 1
        assert f"df -h {directory}" in raised.value.next_step
        assert list(directory.iterdir()) == []


def test_what_a_killed_run_left_goes_and_what_another_writes_stays(filled, directory):
    left = directory / ".guvnor-20260101T000000.000Z-002.dump.unfinished"
    left.write_bytes(b"half")
    with file.new_file(directory, "other.dump", ()) as (_, other):
        other.write(b"PGDMP")
        take.back_up_database(Database(filled.dsn), options(directory), quiet)
        assert not left.exists()
    assert (directory / "other.dump").read_bytes() == b"PGDMP"


@pytest.mark.usefixtures("tools")
def test_pg_dump_has_the_rights_of_the_role_that_the_connection_acts_as(server, migrated, directory):
    owner, migrator = server.create_role(), server.create_role("NOINHERIT")
    server.execute(f'GRANT "{owner.name}" TO "{migrator.name}"')
    for kind in ("TABLES", "SEQUENCES"):
        migrated.execute(f'GRANT SELECT ON ALL {kind} IN SCHEMA public TO "{owner.name}"')
    migrated.execute(f'GRANT SELECT ON {", ".join(BOOKKEEPING)} TO "{migrator.name}"')
    dsn = migrated.dsn_with(migrator)
    with pytest.raises(BackupError, match="permission denied") as raised:
        take.back_up_database(Database(dsn), options(directory), quiet)
    assert migrator.password not in raised.value.message
    assert list(directory.iterdir()) == []
    server.execute(f'ALTER ROLE "{migrator.name}" SET role = "{owner.name}"')
    assert take.back_up_database(Database(dsn), options(directory), quiet).path.exists()


def test_a_service_and_several_hosts_are_followed(filled, directory, tmp_path, monkeypatch):
    filled.execute("UPDATE incidents SET title = '障害' WHERE severity = 'low'")
    with contextlib.closing(postgres.connect(filled.dsn)) as connection:
        info = connection.info
        host, port, user, password = info.host, info.port, info.user, info.password
    services = tmp_path / "services"
    services.write_text(f"[wrong]\nhost=/nowhere\nport=1\nuser={user}\ndbname={filled.name}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGPASSWORD", password or "")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")  # there are characters that it does not have
    # What the string says wins over the service, which libpq's variables do not.
    dsn = f"service=wrong host=/nowhere,{host} port=1,{port}"
    assert take.check_backup(Database(dsn), options(directory), whole=True).startswith("with pg_dump ")
    assert take.back_up_database(Database(dsn), options(directory), quiet).path.exists()


def table(name):
    return Object("table", name, {})


def column(relation, name):
    return Object("column", f"{relation}.{name}", {}, (f"relation:{relation}",))


def rows_of(database, *relations):
    return [database.execute(f"SELECT to_jsonb(t) FROM {name} AS t ORDER BY 1") for name in relations]


def test_odd_names_keys_and_orders_come_back(database, directory, by_the_book):
    make = """
        CREATE TABLE zoo (id integer PRIMARY KEY);
        CREATE TABLE "A ""b's"" table" (
            "Key" integer, "der Tag" date, zoo integer REFERENCES zoo DEFERRABLE INITIALLY DEFERRED,
            "Wert %s" text, twice integer GENERATED ALWAYS AS (zoo * 2) STORED,
            PRIMARY KEY ("Key", "der Tag")
        );
        CREATE TABLE "An animal" (id integer PRIMARY KEY, zoo integer REFERENCES zoo)
    """
    relation = '''"A ""b's"" table"'''
    database.execute(make)
    database.execute(
        """INSERT INTO zoo SELECT generate_series(1, 3); INSERT INTO "An animal" VALUES (1, 3)"""
    )
    rows = [
        (1, "2026-01-01", 1, 'a "quoted", ünd\n\\.\nlong'),
        (1, "2026-01-02", None, ""),
        (2, "2026-01-01", 3, None),
    ]
    for row in rows:
        database.execute(f"INSERT INTO {relation} VALUES (%s, %s, %s, %s)", row)
    before = rows_of(database, "zoo", '"An animal"', relation)
    objects = [
        # Objects that went with their table, or that the live database does not have, are passed over.
        table("zoo"), column("zoo", "id"), table('"An animal"'), table("missing"), column("missing", "id"),
        column(relation, "zoo"), column(relation, '"Wert %s"'), column(relation, "twice"),
    ]  # fmt: skip
    taken = of_what_is_dropped(database, options(directory), objects)
    assert taken.what == f'public.zoo, public."An animal", public.{relation}.zoo, public.{relation}."Wert %s"'

    database.execute(f'DROP TABLE {relation}, "An animal", zoo')
    database.execute(make)
    for key, day, *_ in rows:
        database.execute(f'INSERT INTO {relation} ("Key", "der Tag") VALUES (%s, %s)', [key, day])
    restore, _ = of_a_rollback()
    by_the_book(restore, database, backup=taken.path)
    assert rows_of(database, "zoo", '"An animal"', relation) == before


def test_sequences_partitions_and_views_come_back(database, directory, by_the_book):
    make = """
        CREATE SEQUENCE tickets;
        CREATE TABLE ticks (
            id serial, at date, span interval, weight float8
        ) PARTITION BY RANGE (at);
        CREATE TABLE ticks_2026 PARTITION OF ticks FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE MATERIALIZED VIEW latest AS SELECT max(at) AS at FROM ticks;
        CREATE MATERIALIZED VIEW even_later AS SELECT at + 1 AS at FROM latest;
        CREATE TABLE parents (id integer GENERATED ALWAYS AS IDENTITY);
        CREATE TABLE children (name text) INHERITS (parents);
        CREATE FUNCTION zero() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.weight = 0; RETURN NEW; END';
        CREATE TRIGGER zero BEFORE INSERT ON ticks FOR EACH ROW EXECUTE FUNCTION zero()
    """
    drop = "DROP TABLE ticks, parents CASCADE; DROP SEQUENCE tickets; DROP FUNCTION zero"
    database.execute(make)
    # A partition that no revision has made; a sequence that is set and not yet used.
    database.execute(
        """
        CREATE TABLE ticks_2027 PARTITION OF ticks FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
        ALTER TABLE ticks DISABLE TRIGGER zero;
        INSERT INTO ticks (at, span, weight)
        VALUES ('2026-05-01', '-1 day +02:03', 0.1), ('2027-05-01', NULL, 'NaN');
        SELECT setval('tickets', 40, false);
        REFRESH MATERIALIZED VIEW latest; REFRESH MATERIALIZED VIEW even_later;
        INSERT INTO parents DEFAULT VALUES; INSERT INTO children VALUES (2, 'two')
        """
    )
    sequences = (
        f"(SELECT last_value, is_called FROM {name})"
        for name in ("tickets", "ticks_id_seq", "parents_id_seq")
    )
    relations = ("ticks", "latest", "even_later", "ONLY parents", "children", *sequences)
    before = rows_of(database, *relations)
    objects = [table(name) for name in ("children", "parents", "ticks", "ticks_2026")]
    objects += [Object("materialized view", name, {}) for name in ("even_later", "latest")]
    objects.append(Object("sequence", "tickets", {}))
    with contextlib.closing(postgres.connect(database.dsn)) as connection:
        connection.cursor().execute("SET datestyle = 'German'; SET intervalstyle = 'sql_standard'")
        taken = take.back_up_dropped(connection, objects, options(directory), quiet)
    assert "ticks_2026" not in taken.what

    database.execute(drop)
    database.execute(make)
    database.execute(
        "CREATE TABLE ticks_2027 PARTITION OF ticks FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"
    )
    restore, _ = of_a_rollback()
    by_the_book(restore, database, backup=taken.path)
    assert rows_of(database, *relations) == before
    assert database.execute("SELECT tgenabled FROM pg_trigger WHERE tgname = 'zero'")[0] == ("O",)


def test_half_a_script_changes_nothing(filled, directory, by_the_book, tmp_path):
    taken = of_what_is_dropped(filled, options(directory), [column("incidents", "escalation_policy_id")])
    script = gzip.decompress(taken.path.read_bytes())
    half = tmp_path / "half.gz"
    half.write_bytes(gzip.compress(script[: script.index(b"COMMIT;")]))
    before = described(filled)
    filled.execute("UPDATE incidents SET escalation_policy_id = NULL")
    without = described(filled)
    restore, _ = of_a_rollback()
    assert "COMMIT" not in by_the_book(restore, filled, backup=half)
    assert described(filled) == without != before


@pytest.mark.usefixtures("tools")
def test_tables_in_a_circle_are_said(database, directory):
    database.execute(
        "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY REFERENCES a); "
        "ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES b"
    )
    with pytest.raises(BackupError, match=r"public\.a, public\.b refer to each other in a circle"):
        of_what_is_dropped(database, options(directory), [table("a"), table("b")])
    assert list(directory.iterdir()) == []


def test_a_rollback_that_drops_no_data_has_no_backup(filled, directory):
    assert of_what_is_dropped(filled, options(directory), []) is None
    assert (
        of_what_is_dropped(filled, options(directory), [Object("index", "idx_incidents_status", {})]) is None
    )
    assert list(directory.iterdir()) == []


def test_a_column_alone_is_saved_without_its_table(filled, directory):
    taken = of_what_is_dropped(filled, options(directory), [column("incidents", "escalation_policy_id")])
    script = gzip.decompress(taken.path.read_bytes()).decode()
    assert re.findall("^COPY .*$", script, re.MULTILINE) == [
        "COPY saved (id, escalation_policy_id) FROM stdin;"
    ]
    (count,) = filled.execute("SELECT count(escalation_policy_id) FROM incidents")
    assert re.findall("^-- Rows: (.*)$", script, re.MULTILINE) == [str(count[0])]
    assert SECRET not in script


@pytest.mark.usefixtures("tools")
def test_rows_that_cannot_be_told_from_those_that_remain_are_said(database, directory):
    database.execute(
        "CREATE TABLE t (a integer); CREATE TABLE u (a integer PRIMARY KEY); CREATE TABLE v () INHERITS (u)"
    )
    for relation, message in (("t", "no primary key"), ("u", "tables that inherit from it")):
        emptied = Object("table", relation, {"emptied": "delete"})
        with pytest.raises(BackupError, match=message):
            of_what_is_dropped(database, options(directory), [emptied])
        of_what_is_dropped(database, options(directory), [Object("table", relation, {"emptied": "truncate"})])


@pytest.mark.usefixtures("tools")
def test_a_column_without_a_key_is_said(database, directory):
    database.execute(
        "CREATE TABLE t (a integer, b integer); CREATE TABLE u (a integer PRIMARY KEY, b integer)"
    )
    for relation, name in (("t", "a"), ("u", "a")):
        with pytest.raises(BackupError, match="no primary key that remains"):
            of_what_is_dropped(database, options(directory), [column(relation, name)])
    assert list(directory.iterdir()) == []


def test_the_check_says_how_the_backup_is_taken(filled, directory, key, tools):
    said = take.check_backup(Database(filled.dsn), options(directory), whole=False)
    assert said == f"to {directory}, not encrypted"
    said = take.check_backup(Database(filled.dsn), options(directory), whole=True)
    assert said == f"with pg_dump {tools.version} of {tools.directory} to {directory}, not encrypted"
    said = take.check_backup(
        Database(filled.dsn), options(directory, key, require_encryption=True), whole=True
    )
    assert said.endswith("encrypted for 1 recipient")
    assert (
        take.check_backup(Database(filled.dsn), BackupOptions(None, command="true"), whole=True)
        == "by the command that was given"
    )
    assert list(directory.iterdir()) == []


def refused(database, wanted, *texts):
    """Expect that the check refuses with exit code 3, and the backup itself, too."""
    with pytest.raises(BackupCheckError) as raised:
        take.check_backup(Database(database.dsn), wanted, whole=True)
    error = raised.value
    assert (error.exit_code, error.state) == (3, "No backup was started; the database is unchanged.")
    assert error.next_step
    for text in texts:
        assert text in error.message + error.next_step
    return error


def test_the_check_refuses_what_cannot_work(filled, directory, tmp_path, key, monkeypatch):
    refused(filled, BackupOptions(tmp_path / "nowhere"), "does not exist", "mkdir -m 700")
    refused(filled, BackupOptions(key), "is not a directory")
    refused(filled, BackupOptions(None), "No directory is named")
    unencrypted = options(directory, require_encryption=True)
    refused(filled, unencrypted, "has to be encrypted", "--backup-recipient")
    with pytest.raises(BackupCheckError):
        take.back_up_database(Database(filled.dsn), unencrypted, quiet)
    secret = str(identity(key))
    error = refused(filled, BackupOptions(directory, (secret,)), "Recipient 1", "age-keygen -y")
    assert secret not in error.message + error.next_step
    good = str(identity(key).to_public())
    refused(filled, BackupOptions(directory, (good, "ssh-ed25519 AAAA")), "Recipient 2")
    monkeypatch.setitem(sys.modules, "pyrage", None)
    refused(filled, BackupOptions(directory, (good,)), "pyrage", "pip install 'guvnor-migrations[backup]'")
    assert list(directory.iterdir()) == []


def test_a_directory_that_is_closed_is_refused(filled, directory):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    directory.chmod(0o500)
    refused(filled, options(directory), "cannot be written to: permission denied")


def old_tools(path, version):
    """Programs that say that they are of an old release."""
    path.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (path / name).write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) {version}"\n')
        (path / name).chmod(0o700)
    return path


def test_a_pg_dump_older_than_the_server_is_said(server, filled, directory, tools, tmp_path, monkeypatch):
    old = old_tools(tmp_path / "old", "9.6.24")
    monkeypatch.setenv("GUVNOR_PG_BIN", str(old))
    # One that fits is found although an old one is named.
    assert take.check_backup(Database(filled.dsn), options(directory), whole=True).startswith("with pg_dump ")
    monkeypatch.setattr(pg_dump, "_directories", lambda: [old])
    error = refused(filled, options(directory), "pg_dump is older than the server", f"9.6.24 in {old}")
    assert f"postgresql-client-{server.major}" in error.next_step
    monkeypatch.setattr(pg_dump, "_directories", lambda: [tmp_path / "nowhere"])
    refused(filled, options(directory), "There is no pg_dump here")
    monkeypatch.setattr(
        pg_dump, "_directories", lambda: [old_tools(tmp_path / "new", "99.1"), tools.directory]
    )
    assert pg_dump.find_tools(server.major) == tools, "no newer than need be"


def test_a_wrong_connection_is_said_by_the_check(filled, directory):
    with pytest.raises(GuvnorError) as raised:
        take.check_backup(
            Database(filled.dsn_with(dbname=f"{filled.name}_not")), options(directory), whole=True
        )
    assert raised.value.exit_code == 3
    assert list(directory.iterdir()) == []


def test_a_command_of_the_users_own_gets_the_connection(filled, tools, tmp_path, caplog):
    target = tmp_path / "by command"
    command = (
        f'{tools.directory}/psql --no-psqlrc -Atc "SELECT count(*) FROM incidents" | tee "{target}" '
        '&& echo "name $GUVNOR_BACKUP_NAME"'
    )
    with caplog.at_level("INFO"):
        taken = take.run_backup_command(Database(filled.dsn), command, quiet)
    assert (taken.path, taken.bytes, taken.sha256, taken.encrypted) == (None, None, None, False)
    assert target.read_text() == "4\n"
    assert re.search(rf"backup command: name {filled.name}-\d+T[\d.]+Z-002$", caplog.text, re.MULTILINE)


def test_a_command_that_fails_stops(filled):
    with pytest.raises(BackupError) as raised:
        take.run_backup_command(Database(filled.dsn), "echo the bucket is closed >&2; exit 9", quiet)
    assert raised.value.exit_code == 1
    assert "exit code 9" in raised.value.message
    assert "the bucket is closed" in raised.value.message
