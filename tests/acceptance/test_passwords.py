"""Is a password, or a piece of one, ever shown: in output, logs, errors or the process list?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest

from tests.support.server import uri

WORD = "hunter2"


def leaks(*texts: str) -> bool:
    return any(WORD in text for text in texts)


def commands(guvnor, alembic):
    yield guvnor, ("-v", "migrate", "up")
    yield guvnor, ("-v", "migrate", "down")
    yield guvnor, ("-v", "migrate", "status")
    yield guvnor, ("-v", "migrate", "history")
    yield guvnor, ("-v", "migrate", "preflight")
    yield guvnor, ("-v", "migrate", "force", "1")
    yield guvnor, ("-v", "db", "mark")
    yield guvnor, ("-v", "config", "show")
    yield alembic, ("upgrade", "head")
    yield alembic, ("current",)


def test_no_command_shows_it_when_the_connection_fails(guvnor, alembic):
    good, bad = f"{WORD}@{WORD}", f"postgres://u:{WORD}@{WORD}/x@127.0.0.1:1/d"
    refused = f"postgres://u:{quote(good)}@127.0.0.1:1/d"
    for number, (command, words) in enumerate(commands(guvnor, alembic)):
        dsn = (refused, bad)[number % 2]
        environment = {"GUVNOR_LOG_LEVEL": "debug", "GUVNOR_SHADOW_DSN": dsn}
        result = command(*words, database=dsn, env=environment)
        assert result.code == (0 if "show" in words else 3 if dsn is refused else 2), result.err
        assert not leaks(result.out, result.err), (words, result)
        assert "Traceback" not in result.err


def test_a_wrong_password_is_not_shown(server, database, guvnor, alembic):
    role = server.create_role()
    wrong = {"password": f"{WORD} '@/é"}
    try:
        psycopg2.connect(database.dsn_with(role, **wrong)).close()
    except psycopg2.OperationalError:
        pass
    else:
        pytest.skip("the server does not look at passwords")
    fields = psycopg2.extensions.parse_dsn(database.dsn_with(role, **wrong))
    keywords = psycopg2.extensions.make_dsn(**fields)
    without = database.dsn_with(role, password=None)
    for command, words, dsn, env in (
        (guvnor, ("-v", "migrate", "up"), uri(fields), {}),
        (guvnor, ("migrate", "status"), keywords, {"GUVNOR_ENV": "production"}),
        (guvnor, ("-v", "migrate", "preflight"), without, {"PGPASSWORD": wrong["password"]}),
        (alembic, ("upgrade", "head"), keywords, {"GUVNOR_LOG_LEVEL": "debug"}),
    ):
        result = command(*words, database=dsn, env=env)
        assert result.code == 3
        assert f"password authentication failed for role {role.name}" in result.out + result.err
        assert not leaks(result.out, result.err)


def test_a_run_that_works_does_not_show_it(server, guvnor):
    """At debug level, in the logs, the history and the process list; with all ways to give the password."""
    role = server.create_role()
    password = f"{WORD}@/:%?#' é"
    server.execute(f'ALTER ROLE "{role.name}" PASSWORD %s', [password])
    database = server.create_database(owner=role)
    dsn = database.dsn_with(role, password=password)
    holder = database.connect()
    holder.autocommit = False
    with holder.cursor() as cursor:  # so that the run waits where the process list can be looked at
        cursor.execute("SELECT pg_advisory_lock(%s)", [0x6775_766E_6F72])
    process = guvnor.process.start("-v", "migrate", "up", database=dsn)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "waiting for another migration" in line:
            break
    seen = command_lines()
    assert str(process.pid) in seen
    holder.close()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert not leaks(out, said, err, *seen.values())
    for words in (("migrate", "history", "--json"), ("migrate", "status", "--json"), ("config", "show")):
        result = guvnor("-v", *words, database=dsn)
        assert result.code == 0
        assert not leaks(result.out, result.err)
    (row,) = database.execute("SELECT array_agg(h::text) FROM guvnor_migration_history AS h")
    assert not leaks(*row[0])


def command_lines() -> dict[str, str]:
    """The command lines of all processes, by pid."""
    if Path("/proc/self/cmdline").exists():
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found[path.parent.name] = path.read_text(errors="replace")
            except OSError:  # it has ended
                continue
        return found
    listed = subprocess.run(["ps", "axww", "-o", "pid=,command="], capture_output=True, text=True, check=True)
    return dict(line.split(None, 1) for line in listed.stdout.splitlines() if re.match(r"\s*\d+\s", line))
