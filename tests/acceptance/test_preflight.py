"""Is all that keeps a migration from starting found, told in its own words, and mended by what is told?"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from guvnor.embedded import LocalServer, programs
from tests.support.choice import in_memory
from tests.support.expect import AT_HEAD, ends, next_step, succeeds, tables, versions

START = """
import sys
from pathlib import Path
from guvnor.embedded import LocalServer
LocalServer(Path(sys.argv[1])).start()
"""


# Servers of these tests' own: stopped, starting, a standby, with TLS, behind a pooler


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="guvnor-preflight-", dir=in_memory()) as directory:
        home = Path(directory) / ".guvnor"
        try:
            yield home
        finally:
            LocalServer(home).stop()


@pytest.fixture(scope="module")
def initialized() -> Iterator[Path]:
    """A server that was started once, to be copied."""
    with folder() as home:
        LocalServer(home).start()
        LocalServer(home).stop()
        yield home


@pytest.fixture
def home(initialized: Path) -> Iterator[Path]:
    """A server that is stopped."""
    with folder() as home:
        shutil.copytree(initialized, home)
        yield home


def configure(home: Path, **settings: str) -> None:
    with (home / "data" / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def dsn_of(home: Path) -> str:
    status = LocalServer(home).status()
    return f"host={status.socket_directory} port={status.port} user=guvnor dbname=guvnor"


def wait_for(what, patience=30.0):
    deadline = time.monotonic() + patience
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.integration
def test_a_stopped_server(home, guvnor):
    place = LocalServer(home).status()
    result = ends(guvnor("migrate", "preflight", database=dsn_of(home)), 3, "✅ Configuration loaded")
    assert f"❌ database connection failed: the server at {place.socket_directory}" in result.out
    assert "refused the connection" in result.err
    assert next_step(result) == [f"pg_isready -h {place.socket_directory} -p {place.port}"]


@pytest.mark.integration
def test_a_server_that_is_still_starting(home, guvnor):
    """It is held in recovery, which is when a server takes no connections yet."""
    hold = home / "hold"
    hold.touch()
    # Without hot_standby, nobody is let in before it is the primary again.
    configure(home, hot_standby="off", restore_command=f'while test -e "{hold}"; do sleep 0.05; done; false')
    (home / "data" / "recovery.signal").touch()
    dsn = dsn_of(home)

    waiting = guvnor.process.start("migrate", "up", "--wait-for-server", "60", database=dsn)
    assert waiting.stderr is not None
    assert "waiting for the server" in waiting.stderr.readline()
    with subprocess.Popen([sys.executable, "-c", START, home], start_new_session=True) as starter:
        wait_for(lambda: "starting up" in refusal(dsn))
        result = ends(guvnor("migrate", "preflight", database=dsn), 3, "is starting up or shutting down")
        assert "guvnor migrate preflight --wait-for-server 60" in next_step(result)
        early = guvnor("migrate", "preflight", "--wait-for-server", "0.2", database=dsn)
        ends(early, 3, "is starting up")
        hold.unlink()
        assert starter.wait(60) == 0
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert "✅ Migration completed: version 2" in out


def refusal(dsn: str) -> str:
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


@pytest.mark.integration
def test_a_standby(home, guvnor):
    (home / "data" / "standby.signal").touch()
    LocalServer(home).start()
    dsn = dsn_of(home)
    result = ends(guvnor("migrate", "preflight", database=dsn), 3, "❌ The server", "a read-only standby")
    assert "target_session_attrs=read-write" in result.err
    succeeds(guvnor("migrate", "status", database=dsn), "No migrations applied")
    ends(guvnor("migrate", "force", "1", database=dsn), 1, "read-only", "guvnor migrate preflight")


@pytest.mark.integration
def test_a_standby_of_a_database_that_is_serializable_by_default(home, guvnor):
    """It refuses every query in a serializable transaction."""
    LocalServer(home).start()
    dsn = dsn_of(home)
    with contextlib.closing(psycopg2.connect(dsn)) as once, once, once.cursor() as cursor:
        cursor.execute("ALTER ROLE guvnor SET default_transaction_isolation = 'serializable'")
    LocalServer(home).stop()
    (home / "data" / "standby.signal").touch()
    LocalServer(home).start()
    ends(guvnor("migrate", "preflight", database=dsn), 3, "❌ The server", "a read-only standby")
    succeeds(guvnor("migrate", "status", database=dsn), "No migrations applied")


@pytest.mark.integration
def test_who_may_come_in_is_told_apart(home, guvnor):
    LocalServer(home).start()
    dsn = dsn_of(home)
    ends(
        guvnor("migrate", "preflight", database=f"{dsn} user=nobody_here"),
        3,
        "role nobody_here does not exist",
    )
    result = guvnor("migrate", "preflight", database=f"{dsn} dbname=nowhere")
    ends(result, 3, "the database nowhere does not exist", "createdb -h ")
    # The first of two hosts is not there; what the second one says is the reason.
    place = LocalServer(home).status()
    both = f"{dsn} host={place.socket_directory},{place.socket_directory} port=1,{place.port} dbname=nowhere"
    ends(guvnor("migrate", "preflight", database=both), 3, "the database nowhere does not exist")
    (home / "data" / "pg_hba.conf").write_text("local guvnor guvnor trust\n")
    LocalServer(home).stop()
    with contextlib.suppress(Exception):  # its own superuser is shut out, too
        LocalServer(home).start()
    ends(
        guvnor("migrate", "preflight", database=f"{dsn} dbname=postgres"),
        3,
        "does not let role guvnor in from this address (pg_hba.conf)",
    )


def tls_programs() -> Path | None:
    """A PostgreSQL with TLS, as distributions have it; the wheel has none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[4]))
    return found[-1].parent if found and shutil.which("openssl") else None


@pytest.mark.integration
@pytest.mark.skipif(tls_programs() is None, reason="needs a PostgreSQL with TLS below /usr/lib/postgresql")
def test_a_server_that_wants_tls(guvnor, monkeypatch, tmp_path):
    monkeypatch.setenv("GUVNOR_PG_BIN", str(tls_programs()))
    with folder() as home:
        server = LocalServer(home)
        server.start(tcp=True)
        server.stop()
        data = home / "data"
        owner = data.stat()
        key, certificate = data / "server.key", data / "server.crt"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db.example"),
                *("-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        key.chmod(0o600)
        os.chown(key, owner.st_uid, owner.st_gid)
        configure(home, ssl="on")
        (data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl guvnor guvnor 127.0.0.1/32 scram-sha-256\n"
        )
        server.start(tcp=True)
        url = server.url()

        def preflight_with(words, dsn=url):
            return guvnor("migrate", "preflight", database=dsn + words)

        result = ends(preflight_with("&sslmode=disable"), 3, "accepts this role only over TLS")
        assert "sslmode=require" in result.err
        # libpq then tries without TLS, and both answers are in its text.
        without = url.split("?")[0].replace("guvnor@", "guvnor:wrong@")
        ends(preflight_with("", without), 3, "password authentication failed for role guvnor")
        ends(preflight_with("&dbname=postgres"), 3, "does not let role guvnor in from this address")
        ends(preflight_with("&sslmode=verify-full"), 3, "its certificate was not accepted", "sslrootcert")
        trusted = shutil.copy(certificate, tmp_path)
        ends(preflight_with(f"&sslmode=verify-full&sslrootcert={trusted}"), 3, "certificate was not accepted")
        passed = succeeds(preflight_with("&sslmode=require"), "✅ Pre-flight checks passed")
        assert "is not encrypted" not in passed.out


def test_tls_that_the_server_does_not_offer(server, database, guvnor):
    if server.execute("SHOW ssl") != [("off",)]:
        pytest.skip("this server offers TLS")
    if psycopg2.extensions.parse_dsn(database.dsn)["host"].startswith("/"):
        pytest.skip("reached over a Unix socket")
    result = guvnor("migrate", "preflight", database=database.dsn_with(sslmode="require"))
    ends(result, 3, "asks for TLS, which the server", "sslmode=prefer")


def test_wrong_password_and_unknown_database(server, database, guvnor):
    role = server.create_role()
    unknown = ends(
        guvnor("migrate", "preflight", database=database.dsn_with(dbname="no_such_db")),
        3,
        "❌ database connection failed: the database no_such_db does not exist",
    )
    assert next_step(unknown)[0].endswith(" no_such_db")
    wrong = database.dsn_with(role, password="not it")
    if "password" not in refusal(wrong):
        pytest.skip("the server does not look at passwords")
    result = guvnor("migrate", "preflight", "--wait-for-server", "60", database=wrong, timeout=20)
    ends(result, 3, f"password authentication failed for role {role.name}", "guvnor config show")


def test_a_server_that_never_answers(guvnor):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dsn = f"postgres://u@127.0.0.1:{port}/d?connect_timeout=2"
        result = ends(
            guvnor("migrate", "preflight", database=dsn), 3, f"no answer from 127.0.0.1, port {port}"
        )
        assert next_step(result) == [f"pg_isready -h 127.0.0.1 -p {port}"]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs pgbouncer")
def test_a_connection_pooler(home, guvnor):
    """In transaction mode it gives every transaction another session: locks and settings do not hold."""
    LocalServer(home).start()
    place = LocalServer(home).status()
    with tempfile.TemporaryDirectory(prefix="guvnor-pool-", dir=in_memory()) as directory:
        account = programs.server_account()
        os.chown(directory, account.uid, -1)
        dsn = f"host={directory} port=6432 user=guvnor dbname=guvnor"
        for mode in ("transaction", "session"):
            (Path(directory) / "pgbouncer.ini").write_text(
                "[databases]\n"
                f"* = host={place.socket_directory} port={place.port} user=guvnor\n"
                "[pgbouncer]\n"
                f"unix_socket_dir = {directory}\n"
                f"listen_port = 6432\nauth_type = any\npool_mode = {mode}\n"
            )
            command = [*account.prefix, "pgbouncer", f"{directory}/pgbouncer.ini"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pooler:
                try:
                    wait_for(lambda: not refusal(dsn))
                    result = guvnor("migrate", "preflight", database=dsn)
                finally:
                    pooler.terminate()
            if mode == "transaction":
                ends(result, 3, "connection pooler in transaction mode", "a pool in session mode")
            else:
                succeeds(result, "goes through a connection pooler (in session mode)")


# What a role may do


def test_each_missing_right_is_named_and_granting_it_helps(server, database, guvnor):
    """The statements that are printed are all that is needed, and each is needed."""
    role = server.create_role()
    name = f"{role.name} Odd-Role"
    server.execute(f'ALTER ROLE "{role.name}" RENAME TO "{name}"')
    try:
        dsn = database.dsn_with(role, user=name)
        database.execute(
            f'REVOKE ALL ON DATABASE "{database.name}" FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC'
        )
        granted = []
        for _ in range(5):
            result = guvnor("migrate", "up", database=dsn)
            if result.code == 0:
                break
            ends(result, 3)
            assert tables(database) == []
            granted.append(next_step(result)[0].split(";")[0])
            database.execute(granted[-1])
        assert granted == [
            f'GRANT CONNECT ON DATABASE {database.name} TO "{name}"',
            f'GRANT USAGE, CREATE ON SCHEMA public TO "{name}"',
            f'GRANT CREATE ON DATABASE {database.name} TO "{name}"',
        ]
        assert "permission denied" not in result.out
        assert versions(database) == AT_HEAD
        assert "❌" not in result.out
    finally:
        server.execute(f'ALTER ROLE "{name}" RENAME TO "{role.name}"')
        database.execute(f'DROP OWNED BY "{role.name}" CASCADE')


def test_extensions_that_are_there_need_no_right(server, database, guvnor):
    available = database.execute(
        "SELECT name FROM pg_available_extensions WHERE name IN ('uuid-ossp', 'btree_gin')"
    )
    role = server.create_role()
    database.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role.name}"')
    dsn = database.dsn_with(role)
    if available:
        result = guvnor("migrate", "preflight", database=dsn)
        ends(result, 3, "failed to create migrator: permission denied", "may not create the extension")
        for step in next_step(result)[1:]:
            database.execute(step)
    result = succeeds(guvnor("migrate", "up", database=dsn))
    assert ("extension uuid-ossp is not available" in result.out) == (("uuid-ossp",) not in available)
    database.execute(f'DROP OWNED BY "{role.name}" CASCADE')


def test_tables_of_another_role(server, migrated, guvnor):
    owner, role = server.create_role(), server.create_role()
    for table in tables(migrated):
        migrated.execute(f'ALTER TABLE "{table}" OWNER TO "{owner.name}"')
    migrated.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role.name}", "{owner.name}"')
    dsn = migrated.dsn_with(role)
    result = ends(guvnor("migrate", "preflight", database=dsn), 3, f"the tables belong to {owner.name}")
    assert next_step(result) == [f"GRANT {owner.name} TO {role.name};"]
    migrated.execute(next_step(result)[0])
    succeeds(guvnor("migrate", "preflight", database=dsn))
    migrated.execute(f'DROP OWNED BY "{role.name}", "{owner.name}" CASCADE')


def test_read_only_by_default(server, database, guvnor):
    server.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    result = ends(
        guvnor("migrate", "up", database=database), 3, "read-only (default_transaction_read_only is on)"
    )
    assert tables(database) == []
    server.execute(next_step(result)[1])
    try:
        succeeds(guvnor("migrate", "up", database=database))
    finally:
        ((role,),) = server.execute("SELECT current_user")
        server.execute(f'ALTER ROLE "{role}" IN DATABASE "{database.name}" RESET ALL')


def test_a_database_without_the_schema(database, guvnor):
    database.execute("DROP SCHEMA public")
    result = ends(guvnor("migrate", "preflight", database=database), 3, "The schema public does not exist")
    database.execute(next_step(result)[0])
    succeeds(guvnor("migrate", "preflight", database=database))


# Revision files


def test_no_files_at_all(project, database, guvnor):
    here = {"database": database, "cwd": project.directory}
    path = project.add_revision("op.execute(", python=True)
    ends(guvnor("migrate", "up", **here), 3, "❌ A migration file cannot be read: SyntaxError", path.name)
    for file in project.versions.glob("*.py"):
        file.unlink()
    ends(guvnor("migrate", "preflight", **here), 3, "❌ no migration files found in ")
    ends(guvnor("migrate", "up", **here), 3, "no migration files found in ")
    shutil.rmtree(project.versions)
    ends(guvnor("migrate", "preflight", **here), 3, "❌ no migration files found: the folder ")
    ends(guvnor("migrate", "status", **here), 3, "no migration files found: the folder ")
    missing = {"ALEMBIC_CONFIG": "nowhere.ini"}
    ends(
        guvnor("migrate", "preflight", database=database, env=missing),
        3,
        "names nowhere.ini, which is not a file",
    )
    assert tables(database) == []


BROKEN = {
    "no Python": (b"def", "A migration file cannot be read: SyntaxError"),
    "leaves": (b"raise SystemExit", "A migration file cannot be read: SystemExit"),
    "Latin-1": (
        "# coding: latin-1\n# \xe9".encode("latin-1"),
        "The migration file 003_test.py is not in UTF-8.",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(
    "words",
    [("migrate", "up"), ("migrate", "plan"), ("schema", "check"), ("schema", "lint", "--since", "2")],
    ids=" ".join,
)
def test_a_file_that_cannot_be_read_is_named(migrated, project, guvnor, broken, words):
    text, message = BROKEN[broken]
    path = project.add_revision("SELECT 1")
    sound = path.read_bytes()
    path.write_bytes(text + b"\n" + sound if broken == "Latin-1" else text)
    shown = guvnor(*words, database=migrated, cwd=project.directory)
    if (broken, words[1]) == ("Latin-1", "check"):
        succeeds(shown, "No drift")  # runs as Python, and that is all that counts here
    elif words[1] == "lint" and broken != "Latin-1":
        assert shown.code == 3
        assert "The file cannot be imported" in shown.out
    else:
        ends(shown, 3, message)


@pytest.mark.parametrize("broken", ["no Python", "leaves"])
@pytest.mark.parametrize("words", [("upgrade", "head"), ("downgrade", "-1"), ("stamp", "001")], ids=" ".join)
def test_plain_alembic_names_a_file_that_cannot_be_read(migrated, project, alembic, broken, words):
    text, message = BROKEN[broken]
    project.add_revision("SELECT 1").write_bytes(text)
    ends(alembic(*words, database=migrated, cwd=project.directory), 3, message)


def test_a_directory_that_is_gone_is_told(guvnor, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [*guvnor._words(("migrate", "status"), None)]
    shown = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *words],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 2
    assert "❌ The current directory no longer exists" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_service_that_is_not_there_is_told(guvnor):
    shown = ends(guvnor("migrate", "status", database="service=none"), 3, "does not find the service")
    assert "pg_isready" not in shown.err
