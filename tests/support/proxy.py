"""A proxy between a client and PostgreSQL that counts the client's messages and stops at one of them.

It speaks just enough of the protocol to tell messages apart (PostgreSQL documentation, "Frontend/Backend
Protocol"): over TCP or a Unix socket to the server, over TCP to the client, without TLS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2.extensions import parse_dsn

from tests.support.server import Target, uri

CANCEL, TLS, GSS = 80877102, 80877103, 80877104  # in place of a protocol version in the first message
TIMEOUT = 30  # seconds; nothing here takes long, so what does is an error


@dataclass(frozen=True)
class Message:
    """One message of the client.

    :ivar number: counts from 1 over all sessions of the client, in the order in which they arrive.
    :ivar kind: the letter of the protocol, or ``startup`` or ``cancel``.
    :ivar text: the SQL of a query, trimmed; else empty.
    :ivar session: counts from 0.
    """

    number: int
    kind: str
    text: str
    session: int


class Session:
    """One connection of the client, and the proxy's own to the server.

    :ivar pid: of the server process; None until the server has told it.
    """

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.pid: int | None = None

    def freeze(self) -> None:
        """Lose everything from now on, as a network that is gone does: nothing arrives, nobody is told."""
        self._frozen.set()

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """Forwards until it comes to the message that it is to stop at; there it waits for :meth:`go_on`.

    While it waits that message's session stands still; others go on. Use it as a context manager.
    """

    def __init__(
        self, target: Target, stop_at: Callable[[Message], bool] = lambda _: False, *, sent: bool = False
    ) -> None:
        """Listen.

        :param target: the database to forward to.
        :param stop_at: tells the message to stop at; the first one counts.
        :param sent: stop after that message has been forwarded and before any answer is; else before.
        """
        self.messages: list[Message] = []
        self.stopped_at: Message | None = None
        self._stop_at = stop_at
        self._sent = sent
        self._stopped = threading.Event()
        self._released = threading.Event()
        self._frozen = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._threads: list[threading.Thread] = []
        self._parameters = parse_dsn(target.dsn)
        self._admin_dsn = target.dsn
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = uri(
            self._parameters
            | {"host": "127.0.0.1", "port": str(port), "sslmode": "disable", "gssencmode": "disable"}
        )
        self._start(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for the test --

    def wait_until_stopped(self, alive: Callable[[], bool] = lambda: True) -> Message | None:
        """Wait until the message has come.

        :param alive: whether the client still runs; it may end without sending the message.
        :returns: the message; None when the client ended without it.
        """
        for _ in range(TIMEOUT * 50):
            if self._stopped.wait(0.02):
                return self.stopped_at
            if not alive():
                return self.stopped_at
        raise AssertionError(f"the client neither sent the message nor ended within {TIMEOUT} s")

    def go_on(self) -> None:
        """Let the session that stands still go on (and stop at nothing any more)."""
        self._released.set()

    def terminate_backend(self) -> None:
        """End the server process of the session that stands still, or cut one that has none yet."""
        assert self.stopped_at is not None
        session = self._sessions[self.stopped_at.session]
        if session.pid is None:
            session.cut()
            return
        with contextlib.closing(psycopg2.connect(self._admin_dsn)) as admin:
            admin.autocommit = True
            with admin.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, %s)", (session.pid, TIMEOUT * 1000))

    def freeze(self) -> None:
        """Lose everything from now on, as a network that is gone does: nothing arrives, nobody is told."""
        self._frozen.set()

    def cut(self) -> None:
        """Cut the session that stands still, as a network does; others go on."""
        assert self.stopped_at is not None
        self._sessions[self.stopped_at.session].cut()

    def drop_connections(self) -> None:
        """Cut all connections, as a network does; the server notices as soon as it reads."""
        for session in list(self._sessions):
            session.cut()

    def close(self) -> None:
        """Cut everything that is still open."""
        self._released.set()
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(TIMEOUT)
        for session in self._sessions:
            session.close()

    # -- forwarding --

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self._frozen.is_set():
                self._closed.wait()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(len(self._sessions), client, self._connect())
            self._sessions.append(session)
            self._start(self._forward_requests, session)
            self._start(self._forward_answers, session)

    def _connect(self) -> socket.socket:
        host, port = self._parameters.get("host", "localhost"), int(self._parameters.get("port", 5432))
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(Path(host) / f".s.PGSQL.{port}"))
            return server
        server = socket.create_connection((host, port), TIMEOUT)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _forward_requests(self, session: Session) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                first = receive(session.client, 8)
                length, code = struct.unpack("!ii", first)
                if code not in (TLS, GSS):
                    break
                session.client.sendall(b"N")
            kind = "cancel" if code == CANCEL else "startup"
            self._forward(session, kind, first + receive(session.client, length - 8))
            while True:
                head = receive(session.client, 5)
                body = receive(session.client, struct.unpack("!i", head[1:])[0] - 4)
                self._forward(session, chr(head[0]), head + body)
        session.cut()

    def _forward(self, session: Session, kind: str, data: bytes) -> None:
        if self._frozen.is_set():
            self._closed.wait()
        text = data[5:-1].decode(errors="replace").strip() if kind == "Q" else ""
        with self._lock:
            message = Message(len(self.messages) + 1, kind, text, session.number)
            self.messages.append(message)
            stops = self.stopped_at is None and not self._released.is_set() and self._stop_at(message)
            if stops:
                self.stopped_at = message
        if not stops:
            session.server.sendall(data)
        elif self._sent:
            session.server.sendall(data)
            self._stopped.set()
            self._released.wait()
        else:
            self._stopped.set()
            self._released.wait()
            session.server.sendall(data)

    def _forward_answers(self, session: Session) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                data = session.server.recv(65536)
                if not data:
                    break
                if self._frozen.is_set():
                    self._closed.wait()
                if session.pid is None:
                    session.pid = process_number(data)
                if self._sent and self.stopped_at is not None and self.stopped_at.session == session.number:
                    self._released.wait()
                session.client.sendall(data)
        session.cut()


def receive(end: socket.socket, length: int) -> bytes:
    """Read exactly so many bytes.

    :raises EOFError: when the other side closes before.
    """
    data = bytearray()
    while len(data) < length:
        part = end.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def process_number(data: bytes) -> int | None:
    """Find the server's process number (BackendKeyData) in the answers to a startup message."""
    position = 0
    while position + 5 <= len(data):
        (length,) = struct.unpack("!i", data[position + 1 : position + 5])
        if data[position : position + 1] == b"K":
            return int(struct.unpack("!i", data[position + 5 : position + 9])[0])
        position += 1 + length
    return None
