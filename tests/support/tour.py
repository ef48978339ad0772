"""The tour of docs/tour.md, at a terminal of 80 columns; ``python -m tests.support.tour`` makes the page.

What they type is run in a scratch clone, on a local server of its own. What differs from one run to the next,
such as the time of day, is compared by :func:`lasting`.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import shlex
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pyte

from guvnor.embedded import LocalServer
from tests.support.clone import PRIORITY_COLUMN, PRIORITY_INDEX, Clone, dangerous
from tests.support.command import CHECKOUT, Command
from tests.support.observe import wait_for

PAGE = CHECKOUT / "docs" / "tour.md"
HOME = "/home/ada/guvnor"
COLUMNS = 80
WIDE = 2000  # so that no path is broken
BEGIN = """# A tour

Three people at a terminal of 80 columns, from the first command to the last. `python -m tests.support.tour`
makes this page, and a test runs all of it again: what you see is what you get.
"""


class Tour:
    """A scratch clone with a server, and the page that is being written."""

    def __init__(self, directory: Path) -> None:
        self.clone = Clone(directory)
        (directory / ".gitignore").write_text("__pycache__/\n.guvnor/\nbackups/\n")
        self.clone.commit()
        self.clone.git("branch", "--force", "main")
        self.env: dict[str, str | None] = {
            "GITHUB_BASE_REF": None,
            "GUVNOR_STORAGE_TYPE": "embedded",
            "TZ": "UTC",
        }
        self.page = [BEGIN]
        self._home = directory.parent / "home"
        self._home.mkdir()
        self._session: list[str] = []

    def title(self, text: str) -> None:
        self.say(f"## {text}")

    def say(self, text: str) -> None:
        """Write a paragraph, after what was typed before it."""
        self._end()
        self.page.append(f"\n{text}\n")

    def type(self, line: str, *answers: tuple[str, str], code: int = 0, first: int | None = None) -> None:
        """Type a command, answer what it asks, and expect an exit code.

        :param first: how many of its lines are shown, of a document that goes into a pipe.
        """
        words = shlex.split(line)
        env = dict(self.env)
        while "=" in words[0]:
            name, _, env[name] = words.pop(0).partition("=")
        command = Command(words.pop(0), self._home)
        here = {"cwd": self.clone.directory, "env": env, "timeout": 240}
        if first is None:
            result = command.terminal(*words, answers=answers, columns=COLUMNS, **here)
        else:
            result, line = command(*words, **here), f"{line} | head -{first}"
        assert result.code == code, f"{line}: exit {result.code}\n{result.out}{result.err}"
        self._session += [f"$ {line}", *self._shown(result.out)[:first]]

    def kill(self, line: str, when: str, database: str) -> None:
        """Type a command, and kill it once a query finds a row."""
        command = Command(*shlex.split(line)[:1], self._home)
        process = command.start(*shlex.split(line)[1:], cwd=self.clone.directory, env=self.env)
        with contextlib.closing(psycopg2.connect(database)) as watching:
            watching.autocommit = True
            wait_for("the moment to kill it", lambda: found(watching, when))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self._session += [f"$ {line}", "Killed"]

    def show(self, path: Path) -> None:
        """Show a file."""
        self._end()
        self.page.append(f"\n```python\n{path.read_text().strip()}\n```\n")

    def text(self) -> str:
        """Return the page."""
        self._end()
        text = "".join(self.page)
        text = text.replace(f"{getpass.getuser()}@{socket.gethostname()}", "ada@laptop")
        for path in (str(self.clone.directory.resolve()), str(self.clone.directory)):
            text = text.replace(path.replace("/", "%2F"), HOME.replace("/", "%2F")).replace(path, HOME)
        return text

    def _end(self) -> None:
        if self._session:
            self.page.append("\n```console\n" + "\n".join(self._session) + "\n```\n")
            self._session = []

    @staticmethod
    def _shown(out: str) -> list[str]:
        lines = out.split("\n")
        emulator = pyte.Screen(WIDE, 4 * len(lines) + 10)
        pyte.Stream(emulator).feed("\r\n".join(lines).replace("\ufe0f", ""))
        return "\n".join(row.rstrip() for row in emulator.display).rstrip().split("\n")


def found(connection: psycopg2.extensions.connection, query: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone() is not None


def take() -> str:
    """Take the tour, and return its page."""
    with tempfile.TemporaryDirectory() as folder:
        (directory := Path(folder) / "guvnor").mkdir()
        tour = Tour(directory)
        try:
            developer(tour)
            reviewer(tour)
            on_call(tour)
        finally:
            LocalServer(directory / ".guvnor").stop()
        return tour.text()


def developer(tour: Tour) -> None:
    tour.title("A developer adds a column")
    tour.say("A local server starts by itself, and is migrated:")
    tour.type("guvnor migrate up")
    tour.say(
        "She writes a column and its index into `guvnor/models.py`, and lets autogenerate write the revision:"
    )
    tour.clone.change_models(PRIORITY_COLUMN, PRIORITY_INDEX)
    tour.type("alembic revision --autogenerate -m 'add incident priority'")
    tour.show(tour.clone.versions / "003_add_incident_priority.py")
    tour.say("Lint has nothing to say. The plan shows what would be done, and which locks that takes:")
    tour.type("guvnor schema lint")
    tour.type("guvnor migrate plan")
    tour.say("Up, down and up again; then the database is compared with the models:")
    tour.type("guvnor migrate up")
    tour.type("guvnor migrate down")
    tour.type("guvnor migrate up")
    tour.type("guvnor schema check --against models")
    tour.clone.commit()


def reviewer(tour: Tour) -> None:
    tour.title("A reviewer reads a pull request")
    tour.say("Somebody tidies up. The workflow posts the report; the reviewer makes the same one:")
    tour.clone.git("branch", "--force", "main")
    dangerous(tour.clone)
    tour.type("guvnor schema review", first=40, code=3)
    tour.say("Lint says what to write instead:")
    tour.type("guvnor schema lint", code=3)
    tour.clone.git("reset", "--quiet", "--hard", "main")


TITLES = """
op.execute(\"\"\"
    DO $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = 'incidents'::regclass AND conname = 'incidents_title_is_said'
        ) THEN
            ALTER TABLE incidents ADD CONSTRAINT incidents_title_is_said CHECK (length(title) > 3) NOT VALID;
        END IF;
    END
    $$
\"\"\")
op.validate_constraint("incidents", "incidents_title_is_said")
op.create_index_concurrently(
    "idx_incidents_title_team",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_incidents_title_team ON incidents (title, team_id)",
)
"""
NO_TITLES = """
op.execute("DROP INDEX IF EXISTS idx_incidents_title_team")
op.execute("ALTER TABLE incidents DROP CONSTRAINT IF EXISTS incidents_title_is_said")
"""


def on_call(tour: Tour) -> None:
    tour.title("A deployment, and the person on call")
    production = Production(tour)
    tour.say(
        "Production has the roles that `guvnor migrate roles` makes. The deploy job is one command; here, a"
        " terminal shows it:"
    )
    tour.type("guvnor migrate deploy")
    production.execute(
        "INSERT INTO incidents (title, severity, team_id, priority) VALUES"
        " ('Disk full', 'high', 'storage', 'P1'), ('Hm', 'low', 'storage', NULL)"
    )
    tour.say("The next release brings a constraint that a row breaks. Nothing is touched:")
    tour.clone.add_revision(TITLES, NO_TITLES, name="demand_titles", python=True)
    tour.type("guvnor migrate deploy", code=3)
    production.execute("UPDATE incidents SET title = 'Unclear' WHERE title = 'Hm'")
    tour.say("She corrects the row. This time, the node dies in the middle of an index build:")
    with production.long_report():
        tour.kill(
            "guvnor migrate deploy",
            "SELECT FROM pg_stat_progress_create_index WHERE command LIKE '%CONCURRENTLY'",
            production.owner,
        )
    production.wait_until_left_alone()
    tour.say("What is the state, and what is to be done? The next run does it:")
    tour.type("guvnor migrate status")
    tour.type("guvnor migrate deploy")
    tour.say("The release is taken back, and the one before it, too. What that drops is kept:")
    tour.type("guvnor migrate down --to 2", ("yes", "yes\n"))
    (backup,) = (tour.clone.directory / "backups").glob("*.gz")
    tour.say(
        "Too far: the column comes back, and with the backup its values, while the application works on."
    )
    tour.type("guvnor migrate up")
    tour.type(f"guvnor restore backups/{backup.name}", ("yes", "yes\n"))
    tour.type("guvnor migrate history")


class Production:
    """A second database of the local server, with the recommended roles."""

    def __init__(self, tour: Tour) -> None:
        socket = tour.clone.directory / ".guvnor" / "socket"
        port = LocalServer(tour.clone.directory / ".guvnor").start().port
        self.owner = f"host={socket} port={port} user=postgres dbname=incidents"
        with contextlib.closing(
            psycopg2.connect(self.owner.replace("=incidents", "=postgres"))
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE incidents")
        roles = Command("guvnor", tour.clone.directory.parent)("migrate", "roles", cwd=tour.clone.directory)
        self.execute(roles.out)
        (tour.clone.directory / "backups").mkdir()
        tour.env |= {
            "GUVNOR_ENV": "production",
            "GUVNOR_STORAGE_TYPE": "postgres",
            "GUVNOR_STORAGE_DSN": f"host={socket} port={port} user=guvnor_migrator dbname=incidents",
            "GUVNOR_STORAGE_ROLE": "guvnor_owner",
            "GUVNOR_SCHEMA_GRANTEES": "guvnor_app,guvnor_readonly",
            "GUVNOR_BACKUP_DIR": "backups",
            "GUVNOR_LOG_LEVEL": "warning",
        }

    def execute(self, sql: str) -> None:
        """Run SQL as a superuser."""
        with contextlib.closing(psycopg2.connect(self.owner)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            connection.commit()

    def wait_until_left_alone(self) -> None:
        """Wait until no session of ours is left: a build may go on after its command is killed."""
        ours = "SELECT FROM pg_stat_activity WHERE usename = 'guvnor_migrator'"
        with contextlib.closing(psycopg2.connect(self.owner)) as connection:
            connection.autocommit = True
            wait_for("the end of the build", lambda: not found(connection, ours), 60)

    @contextlib.contextmanager
    def long_report(self) -> Iterator[None]:
        """Keep a snapshot open, for whose end an index build waits."""
        with contextlib.closing(psycopg2.connect(self.owner)) as connection, connection.cursor() as cursor:
            connection.set_session(isolation_level="REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM schedules")
            yield


LASTING = (
    (r"\b\d\d:\d\d:\d\d\b", "12:00:00"),
    (r"\b20\d\d-\d\d-\d\d\b", "2026-01-01"),
    (r"\b\d{8}T\d{6}\.\d{3}Z\b", "20260101T120000.000Z"),
    (r"[+-]?\b\d+(\.\d+)? ?(ms|s|min|kB|MB)\b", "0 s"),
    (r"(_ms=)\d+", r"\g<1>0"),
    (r"\b[0-9a-f]{7,64}\b", "abcdef0"),
    (r"\bport[ =]\d+", "port 1"),
    (r"port%3D\d+|port=\d+", "port=1"),
    (r"\s+", " "),
)


def lasting(page: str) -> str:
    """Return a page on one line, without what differs from one run to the next, and where lines break."""
    for pattern, kept in LASTING:
        page = re.sub(pattern, kept, page)
    return page


if __name__ == "__main__":
    PAGE.write_text(take(), encoding="utf-8")
