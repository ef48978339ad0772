"""A small table that an application uses, and work on it that takes as long as a test wants.

What is slow on a real table by its size is slow here by ``slow()`` and by triggers, which sleep in sessions
of guvnor alone. So a few rows do, and how long a statement takes is no matter of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support import facts
from tests.support.command import Command, Result
from tests.support.project import Project
from tests.support.server import Database, Role, Server

ROWS = 40
NAP = 0.05  # seconds that guvnor needs for each row
WHOLE = ROWS * NAP  # seconds that it needs for the table
BACK = "op.execute('SELECT 1')"

SCHEMA = f"""
    CREATE TABLE customers (id integer PRIMARY KEY);
    CREATE TABLE items (
        id integer PRIMARY KEY, n integer, customer_id integer, label text, seen integer NOT NULL DEFAULT 0,
        pad text NOT NULL DEFAULT repeat('x', 2000)
    ) WITH (autovacuum_enabled = off, fillfactor = 60);  -- two rows in a block, and room for a changed one
    ALTER TABLE items ALTER pad SET STORAGE PLAIN;
    CREATE TABLE notes (item_id integer REFERENCES items);
    CREATE TABLE others (id integer PRIMARY KEY, n integer, seen integer NOT NULL DEFAULT 0)
        WITH (autovacuum_enabled = off);
    INSERT INTO customers SELECT generate_series(1, {ROWS});
    INSERT INTO items SELECT i, i, i, 'old' FROM generate_series(1, {ROWS}) AS i;
    INSERT INTO notes SELECT generate_series(1, {ROWS});
    INSERT INTO others SELECT i, i FROM generate_series(1, {ROWS}) AS i;

    CREATE FUNCTION nap(seconds double precision) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('application_name') LIKE 'guvnor %' THEN
            PERFORM pg_sleep(seconds);
        END IF;
    END $$;
    CREATE FUNCTION slow(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        PERFORM public.nap({NAP});
        RETURN n;
    END $$;
    CREATE FUNCTION slow_random() RETURNS double precision LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM public.nap({NAP});
        RETURN random();
    END $$;
    CREATE FUNCTION slow_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.nap(TG_ARGV[0]::double precision);
        RETURN NEW;
    END $$;
    CREATE FUNCTION slow_statement() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.nap({WHOLE});
        RETURN NULL;
    END $$;

    CREATE TABLE told ();
    CREATE FUNCTION until_told() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        WHILE NOT EXISTS (SELECT FROM public.told) LOOP
            PERFORM pg_sleep(0.02);
        END LOOP;
    END $$;
"""

CONTENTS = """
    SELECT (SELECT jsonb_agg(to_jsonb(i) - 'seen' - 'pad' ORDER BY id) FROM items AS i)::text,
           (SELECT jsonb_agg(to_jsonb(o) - 'seen' ORDER BY id) FROM others AS o)::text,
           (SELECT count(*) FROM notes)
"""


def snapshot(database: Database) -> Any:
    """Everything but what the application changes meanwhile, and the bookkeeping."""
    session = database.connect()
    try:
        return facts.read(session), facts.details(session), database.execute(CONTENTS)
    finally:
        session.close()


@dataclass
class Shop:
    """A database with the tables, a project whose next revision is under test, and the commands.

    :ivar dsn: what the commands connect to.
    :ivar env: more environment variables for them.
    """

    database: Database
    project: Project
    guvnor: Command
    alembic: Command
    dsn: str
    env: dict[str, str]

    def revise(self, upgrade: str, downgrade: str = BACK, *, extra: str = "") -> None:
        """Write revision 003 anew.

        :param upgrade: the body of the function.
        :param extra: more lines of the file, such as ``max_stall = "5s"  # why``.
        """
        path = self.project.add_revision(upgrade, downgrade, number=3, after="002", python=True)
        if extra:
            path.write_text(f"{path.read_text()}\n\n{extra}\n")

    def words(self, tool: str, direction: str, max_stall: str | None, *more: str) -> tuple[str, ...]:
        """The arguments of a tool for a run in a direction."""
        if tool == "guvnor":
            return ("migrate", direction, *(("--max-stall", max_stall) if max_stall else ()), *more)
        ways = {"up": ("upgrade", "head"), "down": ("downgrade", "-1")}
        return (*(("-x", f"max_stall={max_stall}") if max_stall else ()), *ways[direction], *more)

    def run(
        self,
        *more: str,
        tool: str = "guvnor",
        direction: str = "up",
        max_stall: str | None = None,
        env: dict[str, str] | None = None,
        dsn: str | None = None,
    ) -> Result:
        """Run a command to its end."""
        command = self.guvnor if tool == "guvnor" else self.alembic
        return command(
            *self.words(tool, direction, max_stall, *more),
            database=dsn or self.dsn,
            env={**self.env, **(env or {})},
            cwd=self.project.directory,
        )

    def start(
        self,
        *more: str,
        tool: str = "guvnor",
        direction: str = "up",
        max_stall: str | None = None,
        dsn: str | None = None,
    ) -> Any:
        """Start a command."""
        command = self.guvnor if tool == "guvnor" else self.alembic
        return command.start(
            *self.words(tool, direction, max_stall, *more),
            database=dsn or self.dsn,
            env=self.env,
            cwd=self.project.directory,
        )

    def tell(self) -> None:
        """Let the ``until_told()`` of a revision end."""
        self.database.execute("INSERT INTO told DEFAULT VALUES")

    def stalled(self, revision: str = "003") -> tuple[Any, ...]:
        """The last that the history says of a revision's stall: milliseconds, sessions, statement."""
        found = self.database.execute(
            "SELECT stalled_ms, stalled_sessions, stalled_statement FROM guvnor_migration_history "
            "WHERE revision = %s AND stalled_ms IS NOT NULL ORDER BY id DESC LIMIT 1",
            [revision],
        )
        return found[0] if found else (None, None, None)


@dataclass(frozen=True)
class Owned:
    """The same for an owner that may see nothing of other sessions, and a role that acts as it.

    :ivar owner: owns everything.
    :ivar migrator: logs in, and has the owner's rights by SET ROLE alone.
    """

    database: Database
    owner: Role
    migrator: Role


def owned_template(server: Server, guvnor: Command) -> Owned:
    """A database at the head whose owner has no other privilege."""
    owner, migrator = server.create_role(), server.create_role("NOINHERIT")
    server.execute(f'GRANT "{owner.name}" TO "{migrator.name}"')
    database = server.create_database(owner=owner, keep=True)
    env = {"GUVNOR_STORAGE_ROLE": owner.name, "GUVNOR_VERIFY": "no"}
    result = guvnor("migrate", "up", database=database.dsn_with(migrator), env=env)
    assert result.code == 0, result
    database.execute(f'SET ROLE "{owner.name}"; {SCHEMA}')
    return Owned(database, owner, migrator)
