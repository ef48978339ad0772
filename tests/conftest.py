"""Fixtures of the suite. The server is chosen in ``tests/support/choice.py``."""

from __future__ import annotations

import compileall
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from guvnor.backup.file import BackupCheckError
from guvnor.backup.pg_dump import Tools, find_tools
from tests.support.choice import announced, chosen_server
from tests.support.command import FROZEN
from tests.support.forked import ForkedCommand
from tests.support.golang import Golang, build
from tests.support.lint import commit, git
from tests.support.project import Project
from tests.support.sample_data import swell
from tests.support.server import Database, Server
from tests.support.shop import SCHEMA, Shop

HERE = Path(__file__).parent

SERVER = pytest.StashKey[Server]()
STACK = pytest.StashKey[ExitStack]()


def the_server(config: pytest.Config) -> Server:
    """The server of this run, started when first asked for."""
    if SERVER not in config.stash:
        config.stash[STACK] = ExitStack()
        config.stash[SERVER] = config.stash[STACK].enter_context(chosen_server())
    return config.stash[SERVER]


def pytest_configure(config: pytest.Config) -> None:
    """Compile Guvnor once: where PYTHONDONTWRITEBYTECODE is set, each process of a test would do it again."""
    if not hasattr(config, "workerinput"):
        for folder in (HERE.parent, FROZEN):
            compileall.compile_dir(folder / "guvnor", quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server: all in ``integration/``, elsewhere the tests that ask for it."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder == "integration" or "server" in getattr(item, "fixturenames", ()):
            if folder == "unit":
                raise pytest.UsageError(f"{item.nodeid} needs a server; its place is not in tests/unit.")
            item.add_marker(pytest.mark.integration)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say it here where workers collect the tests, and each starts its own."""
    return f"server: {announced()}" if config.getoption("numprocesses", None) else None


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str:
    if config.option.collectonly or not any("server" in getattr(item, "fixturenames", ()) for item in items):
        return "server: none needed"
    try:
        server = the_server(config)
    except Exception as error:  # noqa: BLE001 (the tests that need it will say it again, with the details)
        return f"server: cannot be used: {error}"
    return f"server: PostgreSQL {server.version_name}, {server.kind}"


def pytest_unconfigure(config: pytest.Config) -> None:
    if STACK in config.stash:
        if SERVER in config.stash:
            config.stash[SERVER].disconnect()
        config.stash[STACK].close()


@pytest.fixture(scope="session", autouse=True)
def _frozen_project() -> Iterator[None]:
    """What is called in this process uses the frozen project, as commands do."""
    before = Path.cwd()
    os.chdir(FROZEN)
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The server: make databases and roles on it; they are dropped when the test ends."""
    server = the_server(pytestconfig)
    yield server
    server.drop_all()
    assert server.left_over() == []


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    if "server" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("server").tidy():
        yield


@pytest.fixture
def database(server: Server, _tidy: None) -> Database:
    """An empty database."""
    return server.create_database()


@pytest.fixture
def migrated(server: Server, _tidy: None, template_at_head: Database) -> Database:
    """A database at the head of the revisions, without rows."""
    return server.create_database(template_at_head)


@pytest.fixture
def at_version_1(server: Server, _tidy: None, template_at_version_1: Database) -> Database:
    """A database at revision 001, without rows; incidents has too many blocks for a build at once."""
    return server.create_database(template_at_version_1)


@pytest.fixture(scope="session")
def template_at_head(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Database:
    return migrated_template(server, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def template_at_version_1(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Database:
    template = migrated_template(server, tmp_path_factory.mktemp("template"), "--to", "001")
    swell(template)
    return template


def migrated_template(server: Server, directory: Path, *options: str) -> Database:
    template = server.create_database(keep=True)
    result = ForkedCommand("guvnor", directory)("migrate", "up", *options, database=template)
    assert result.code == 0, result.out + result.err
    return template


@pytest.fixture(scope="session")
def shop_template(server: Server, template_at_head: Database) -> Database:
    template = server.create_database(template_at_head, keep=True)
    template.execute(SCHEMA)
    return template


@pytest.fixture
def shop(
    server: Server,
    _tidy: None,
    shop_template: Database,
    project: Project,
    guvnor: ForkedCommand,
    alembic: ForkedCommand,
) -> Shop:
    """A database with tables that an application uses, at the head, and a project to add a revision to."""
    database = server.create_database(shop_template)
    return Shop(database, project, guvnor, alembic, database.dsn, {"GUVNOR_VERIFY": "no"})


@pytest.fixture
def guvnor(tmp_path: Path) -> Iterator[ForkedCommand]:
    """The command line ``guvnor``, run from an empty directory; see :class:`ForkedCommand`."""
    yield from forked_command("guvnor", tmp_path)


@pytest.fixture
def alembic(tmp_path: Path) -> Iterator[ForkedCommand]:
    """Plain ``alembic`` with the project's ``alembic.ini``, run from an empty directory."""
    yield from forked_command("alembic", tmp_path)


def forked_command(module: str, tmp_path: Path) -> Iterator[ForkedCommand]:
    directory = tmp_path / f"run-{module}"
    directory.mkdir()
    command = ForkedCommand(module, directory)
    yield command
    command.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the revisions that the test may change."""
    directory = tmp_path / "project"
    directory.mkdir()
    return Project(directory)


@pytest.fixture
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project in a Git checkout, on a branch that has just left main."""
    for name in ("GITHUB_BASE_REF", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    git(project.directory, "init", "--initial-branch=main")
    commit(project)
    git(project.directory, "switch", "--create", "work")
    return project


@pytest.fixture
def golang(tmp_path: Path) -> Golang:
    """The real golang-migrate; without Go to build it with, the test is skipped."""
    files = tmp_path / "golang"
    files.mkdir()
    return Golang(build(), files)


@pytest.fixture
def tools(server: Server) -> Tools:
    """pg_dump and its companions that fit the server; without them the test is skipped."""
    try:
        return find_tools(server.major)
    except BackupCheckError as error:
        pytest.skip(error.message)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where backups go."""
    path = tmp_path / "backups"
    path.mkdir()
    return path
