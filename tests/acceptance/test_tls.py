"""Is a connection that others can read along kept out of production, and TLS let through, verified or not?"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.expect import AT_1, AT_HEAD, ends, next_step, succeeds, versions
from tests.support.tls_server import TlsServer, needs_tls, tls_server

pytestmark = pytest.mark.integration

PRODUCTION = {"GUVNOR_ENV": "production"}


@pytest.fixture(scope="module")
def running() -> Iterator[TlsServer]:
    with tls_server() as server:
        yield server


@pytest.fixture
def remote(running):
    """A database, and what makes connection strings for it that leave this machine."""
    role = running.server.create_role()
    database = running.server.create_database(owner=role)
    database.execute(f'ALTER SCHEMA public OWNER TO "{role.name}"')

    def dsn(sslmode, host=running.address, **more):
        return database.dsn_with(role, host=host, port=running.port, sslmode=sslmode, **more)

    database.remote = dsn
    return database


@needs_tls
def test_plaintext_is_refused_in_production(remote, guvnor, alembic):
    plain = {"database": remote.remote("disable"), "env": PRODUCTION}
    for arguments in (
        ["preflight"], ["up"], ["down"], ["status"], ["history"], ["plan"], ["force", "1"],
        ["repair", "--as-is"], ["adopt", "--at", "1"],
    ):  # fmt: skip
        result = ends(guvnor("migrate", *arguments, **plain), 3, "is not encrypted, and this is production")
    assert "sslmode=verify-full" in next_step(result)[0]
    assert "--allow-plaintext" in next_step(result)[1]
    for arguments in (["upgrade", "head"], ["stamp", "head"], ["current"]):
        ends(alembic(*arguments, **plain), 3, "is not encrypted, and this is production")
    assert remote.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]


@needs_tls
def test_plaintext_that_is_allowed_is_put_on_record(running, remote, guvnor, alembic):
    plain = {"database": remote.remote("disable"), "env": PRODUCTION}
    result = succeeds(guvnor("migrate", "up", "--to", "1", "--allow-plaintext", **plain))
    assert f"WARNING: the connection to {running.address} is not encrypted" in result.out
    records = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    (record,) = [record for record in records if record["msg"].startswith("connection without TLS")]
    assert (record["level"], record["host"]) == ("WARN", running.address)
    succeeds(alembic("-x", "allow_plaintext=yes", "upgrade", "head", **plain))
    assert versions(remote) == AT_HEAD
    by_environment = {**plain, "env": {**PRODUCTION, "GUVNOR_ALLOW_PLAINTEXT": "yes"}}
    refused = guvnor("migrate", "force", "1", **by_environment)
    confirm = next_step(ends(refused, 4))[0].split("--confirm ")[1].split()[0]
    succeeds(guvnor("migrate", "force", "1", "--confirm", confirm, **by_environment))
    assert versions(remote) == AT_1
    entries = json.loads(succeeds(guvnor("migrate", "history", "--json", **by_environment)).out)
    assert [entry["direction"] for entry in entries] == ["up", "up", "force"]
    assert {entry["note"] for entry in entries} == {f"connection without TLS to {running.address}"}
    assert "connection without TLS" in guvnor("migrate", "history", **by_environment).out


@needs_tls
def test_the_database_itself_says_that_it_is_production(remote, guvnor):
    plain = remote.remote("disable")
    result = succeeds(guvnor("migrate", "up", database=plain), "is not encrypted: add sslmode=verify-full")
    succeeds(guvnor("db", "mark", database=remote.remote("require")))
    result = ends(guvnor("migrate", "down", database=plain), 3, "the database was marked as production")
    ends(guvnor("migrate", "status", database=plain), 3, "the database was marked as production")
    assert versions(remote) == AT_HEAD
    assert "--allow-plaintext" in result.err


@needs_tls
def test_tls_in_production(running, remote, guvnor):
    def preflight(sslmode, **more):
        return guvnor("migrate", "preflight", database=remote.remote(sslmode, **more), env=PRODUCTION)

    verified = succeeds(preflight("verify-full", sslrootcert=running.ca))
    assert "WARNING: the connection is" not in verified.out
    assert "sslmode=require does not verify that the server is" in succeeds(preflight("require")).out
    assert "sslmode=prefer does not verify that the server is" in succeeds(preflight("prefer")).out
    verified = preflight("verify-ca", sslrootcert=running.ca)
    assert "sslmode=verify-ca does not verify that the server is" in succeeds(verified).out
    # Another authority's certificate, no authority at all, a certificate of another host.
    ends(preflight("verify-full", sslrootcert=running.other_ca), 3, "its certificate was not accepted")
    ends(preflight("verify-full"), 3, "its certificate was not accepted", "sslrootcert")
    named = {"host": "other.example", "hostaddr": running.address, "sslrootcert": running.ca}
    ends(preflight("verify-full", **named), 3, "its certificate was not accepted")
    succeeds(
        guvnor("migrate", "up", database=remote.remote("verify-full", sslrootcert=running.ca), env=PRODUCTION)
    )
    assert remote.execute("SELECT DISTINCT note FROM guvnor_migration_history") == [(None,)]


@needs_tls
def test_this_machine_needs_no_tls(running, remote, guvnor):
    """What counts is the address: a name that means this machine is as local as a socket."""
    for host in ("127.0.0.1", "localhost"):
        result = guvnor("migrate", "preflight", database=remote.remote("disable", host), env=PRODUCTION)
        assert "encrypted" not in succeeds(result).out
    named = remote.remote("disable", "far.example", hostaddr="127.0.0.1")
    succeeds(guvnor("migrate", "preflight", database=named, env=PRODUCTION))
    named = remote.remote("disable", "localhost", hostaddr=running.address)
    ends(guvnor("migrate", "preflight", database=named, env=PRODUCTION), 3, "is not encrypted")
    succeeds(guvnor("migrate", "preflight", database=remote, env=PRODUCTION))
