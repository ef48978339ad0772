"""How long the commands take, as ratios to what they are compared with: psql and bare Alembic.

Every round runs every command once, so that a busy machine hits all of them; the medians are compared.

    python benchmarks/cli.py [--rounds N]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from setting import (
    OWNER,
    PROJECT,
    Server,
    environment,
    in_one_transaction,
    introduce,
    local_server,
    median,
    program,
    script,
    table,
)

FURTHER = 1000  # trivial revisions beyond those of the project

TRIVIAL = '''"""trivial

Revision ID: {identifier}
"""

from alembic import op

revision = {identifier!r}
down_revision = {previous!r}


def upgrade() -> None:
    op.execute("SELECT 1")


def downgrade() -> None:
    op.execute("SELECT 1")
'''


@dataclass
class Command:
    """A command that is timed; what is done before it, each time, is not."""

    arguments: list[str]
    directory: Path
    dsn: str = ""
    before: Callable[[], None] = lambda: None
    seconds: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Run it once and return the seconds it took."""
        self.before()
        began = time.perf_counter()
        subprocess.run(
            self.arguments, cwd=self.directory, env=environment(self.dsn), check=True, capture_output=True
        )
        return time.perf_counter() - began

    @property
    def median(self) -> float:
        """The median of all rounds, in seconds."""
        return median(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the commands against psql and bare Alembic.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with local_server() as server, tempfile.TemporaryDirectory(prefix="guvnor-benchmark-") as scratch:
        introduce(server)
        commands = prepare(server, Path(scratch))
        for command in commands.values():
            command.run()  # compiles the modules and fills the caches
        for _ in range(rounds):
            for command in commands.values():
                command.seconds.append(command.run())
        report(commands)


def prepare(server: Server, scratch: Path) -> dict[str, Command]:
    """Make the projects and the databases, and return the commands by name."""
    guvnor, alembic = [script("guvnor"), "migrate"], script("alembic")
    ours = len(list(versions(PROJECT).glob("*.py")))
    for database in ("head", "long"):
        server.create(database)

    def emptied() -> None:
        server.create("empty")

    (scratch / "head.sql").write_text(in_one_transaction("head"))
    psql = [program("psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "head.sql", server.dsn("empty")]

    bare = bare_project(scratch / "bare", server, ours)
    bare_long = bare_project(scratch / "bare_long", server, ours + FURTHER)

    long = scratch / "long"
    shutil.copytree(PROJECT / "alembic", long / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "alembic.ini", long)
    add_trivial(versions(long), ours + FURTHER)

    Command([*guvnor, "up"], PROJECT, server.dsn("head")).run()
    Command([*guvnor, "up", "--to", str(ours)], long, server.dsn("long")).run()
    Command([*guvnor, "force", str(ours + FURTHER)], long, server.dsn("long")).run()
    return {
        "up from empty": Command([*guvnor, "up"], PROJECT, server.dsn("empty"), emptied),
        "psql": Command(psql, scratch, before=emptied),
        "up": Command([*guvnor, "up"], PROJECT, server.dsn("head")),
        "bare upgrade": Command([alembic, "upgrade", "head"], bare),
        "status": Command([*guvnor, "status"], PROJECT, server.dsn("head")),
        "bare current": Command([alembic, "current"], bare),
        "up, long": Command([*guvnor, "up"], long, server.dsn("long")),
        "bare upgrade, long": Command([alembic, "upgrade", "head"], bare_long),
    }


def versions(project: Path) -> Path:
    """Return the folder of a project's revision files."""
    return project / "alembic" / "versions"


def bare_project(directory: Path, server: Server, count: int) -> Path:
    """Make a project as `alembic init` does, with trivial revisions and a database of its own at the head."""
    directory.mkdir()
    server.create(directory.name)
    Command([script("alembic"), "init", "alembic"], directory).run()
    ini = directory / "alembic.ini"
    url = f"postgresql+psycopg2://{OWNER}@/{directory.name}?host={server.socket_directory}"
    ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", url))
    add_trivial(versions(directory), count)
    Command([script("alembic"), "stamp", "head"], directory).run()
    return directory


def add_trivial(folder: Path, count: int) -> None:
    """Write the trivial revisions that are missing, up to a number."""
    for number in range(len(list(folder.glob("*.py"))) + 1, count + 1):
        identifier, previous = f"{number:03d}", f"{number - 1:03d}" if number > 1 else None
        text = TRIVIAL.format(identifier=identifier, previous=previous)
        (folder / f"{identifier}_trivial.py").write_text(text)


def report(commands: dict[str, Command]) -> None:
    """Print medians, ratios and what they are to be at most."""
    rows = [("", "this", "that", "ratio", "at most")]
    for what, ours, theirs, most in (
        ("up from empty : psql -1 -f of the same SQL", "up from empty", "psql", "-"),
        ("up with nothing to do : bare alembic upgrade head", "up", "bare upgrade", "1.20"),
        ("status : bare alembic current", "status", "bare current", "0.35"),
    ):
        this, that = commands[ours].median, commands[theirs].median
        rows.append((what, f"{this:.3f} s", f"{that:.3f} s", f"{this / that:.2f}", most))
    table(rows)
    rows = [("with nothing to do", "as it is", f"{FURTHER} revisions more", "added", "at most")]
    for what, ours, most in (("up", "up", "0.500 s"), ("bare alembic upgrade head", "bare upgrade", "-")):
        short, long = commands[ours].median, commands[f"{ours}, long"].median
        rows.append((what, f"{short:.3f} s", f"{long:.3f} s", f"{long - short:.3f} s", most))
    table(rows)
    print(f"Medians of {len(commands['up'].seconds)} rounds, each of which runs every command once.")


if __name__ == "__main__":
    main()
