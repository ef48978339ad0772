"""Does `guvnor restore` work in production with the four roles of `guvnor migrate roles`, over TLS?"""

from __future__ import annotations

import re

import pytest

from tests.acceptance.test_tls import needs_tls, running  # noqa: F401 (a fixture)
from tests.support import sample_data
from tests.support.expect import ends, next_step, succeeds

pyrage = pytest.importorskip("pyrage")
pytestmark = [pytest.mark.integration, needs_tls]

NAMES = ("owner", "migrator", "application", "read_only")


class Production:
    """A database with the four roles, and the command as the migrator runs it."""

    def __init__(self, running, guvnor):  # noqa: F811
        self.server = running.server
        self.roles = {name: self.server.create_role() for name in NAMES}
        self.database = self.server.create_database()
        flags = [f"--{name.replace('_', '-')}={role.name}" for name, role in self.roles.items()]
        self.database.execute(succeeds(guvnor("migrate", "roles", *flags)).out)
        self._guvnor = guvnor
        self._tls = {
            "host": running.address,
            "port": running.port,
            "sslmode": "verify-full",
            "sslrootcert": running.ca,
        }
        others = (self.roles["application"].name, self.roles["read_only"].name)
        self.env = {
            "GUVNOR_ENV": "production",
            "GUVNOR_STORAGE_ROLE": self.roles["owner"].name,
            "GUVNOR_SCHEMA_GRANTEES": ",".join(others),
        }

    def __call__(self, *words, database=None, **env):
        """Run a command, as the migrator, over TLS."""
        dsn = (database or self.database).dsn_with(self.roles["migrator"], **self._tls)
        return self._guvnor(*words, database=dsn, env={**self.env, **env}, timeout=180)

    def confirmed(self, *words, **others):
        """The same, with the hash that it asks for."""
        refused = ends(self(*words, **others), 4, "You are about to")
        (confirmation,) = re.findall(r"Plan hash: ([0-9a-f]{16})", refused.err)
        return succeeds(self(*words, "--confirm", confirmation, **others))


@pytest.fixture
def production(running, guvnor):  # noqa: F811
    with running.server.tidy():
        yield Production(running, guvnor)


def the_backup(directory, end):
    (path,) = (path for path in directory.iterdir() if path.name.endswith(end))
    return path


def test_what_a_rollback_dropped_comes_back(production, directory, tmp_path):
    key = tmp_path / "key.txt"
    identity = pyrage.x25519.Identity.generate()
    key.write_text(f"{identity}\n")
    encrypted = {"GUVNOR_BACKUP_RECIPIENTS": str(identity.to_public())}
    succeeds(production("migrate", "up"))
    sample_data.fill(production.database)
    before = sample_data.contents(production.database)
    production.confirmed("migrate", "down", "--to", "base", "--backup", directory, **encrypted)
    succeeds(production("migrate", "up"))
    backup = the_backup(directory, ".age")
    production.confirmed("restore", backup, GUVNOR_BACKUP_IDENTITY=str(key))
    assert sample_data.contents(production.database) == before
    assert production.database.execute("SELECT to_regnamespace('guvnor_restore')") == [(None,)]
    succeeds(production("schema", "check"))
    recorded = "SELECT database_role, checksum FROM guvnor_migration_history WHERE event = 'restored'"
    ((role, checksum),) = production.database.execute(recorded)
    assert role == production.roles["migrator"].name
    assert checksum in (backup.parent / f"{backup.name}.sha256").read_text()


def test_the_whole_database_comes_back(production, directory):
    succeeds(production("migrate", "up", "--to", "001"))
    sample_data.fill(production.database)
    before = sample_data.contents(production.database)
    succeeds(production("migrate", "deploy", "--backup", directory))
    backup = the_backup(directory, ".dump")
    new = production.server.create_database()
    production.server.execute(f'DROP DATABASE "{new.name}"')
    words = ("restore", backup, "--into", new.name)
    refused = ends(production(*words), 4, f"make database {new.name} of {backup}")
    (confirmation,) = re.findall(r"Plan hash: ([0-9a-f]{16})", refused.err)
    words = (*words, "--confirm", confirmation)
    by_hand, again = next_step(ends(production(*words), 3, f"may not make database {new.name}"))
    production.server.execute(by_hand.partition(";")[0])
    assert again.startswith("GUVNOR_ENV=production guvnor restore ")
    succeeds(production(*words), f"✅ Restored into database {new.name}: ")
    assert sample_data.contents(new) == before
    owners = new.execute(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    )
    assert owners == [(production.roles["owner"].name,)]
    succeeds(production("schema", "check", database=new))
    succeeds(production("migrate", "up", database=new))
