"""SIGINT and SIGTERM: cancel on the server, roll back, report it, and exit with 130 or 143.

Python runs a signal's handler only when the main thread returns from the statement or the system call that
blocks it. So the signal's number is also written to a pipe (``signal.set_wakeup_fd``), from which a thread
reads it. Until the handler has run, that thread cancels what runs on the server (SQLSTATE 57014; the
connections stay usable) and interrupts the system call, which may have begun just after the signal came.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import psycopg2

from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Interrupts a system call of the main thread; without a handler, the system ignores this signal.
_NUDGE = signal.SIGURG


class Interrupt(KeyboardInterrupt):
    """A signal asked to stop; not an ordinary exception, so that no handler takes it for a failure."""

    def __init__(self, number: int) -> None:
        """Remember which signal it was."""
        self.number = number
        super().__init__(signal.Signals(number).name)


class RunInterrupted(GuvnorError):  # noqa: N818 - as users say it
    """The run was interrupted."""

    next_step = "Run the same command again."

    def __init__(
        self, message: str, number: int, *, state: str | None = None, next_step: str | None = None
    ) -> None:
        """Take the exit code from the signal: 130 for SIGINT, 143 for SIGTERM."""
        super().__init__(message, state=state, next_step=next_step)
        self.exit_code = ExitCode(128 + number)


@dataclass
class Canceller:
    """Cancels what runs on its connections when the first signal arrives."""

    connections: list[Connection] = field(default_factory=list)
    received: int | None = None

    def cancel(self) -> None:
        """Cancel the running statement of each connection; nothing happens on an idle one."""
        for connection in self.connections:
            with contextlib.suppress(psycopg2.Error):
                connection.cancel()


@contextlib.contextmanager
def interruptible(state: str) -> Iterator[Canceller]:
    """Let the first SIGINT or SIGTERM interrupt the body, and explain that; later ones are only logged.

    :param state: what state the database is in when a signal arrives.
    :returns: the canceller, to which connections are added as they are opened.
    :raises RunInterrupted: when a signal has arrived (exit code 130 or 143).
    """
    canceller = Canceller()
    if threading.current_thread() is not threading.main_thread():
        yield canceller  # only the main thread can handle signals
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    noticed = threading.Event()
    main_thread = threading.get_ident()

    def on_signal(number: int, _: FrameType | None) -> None:
        noticed.set()
        if canceller.received is not None:
            log.warning("already stopping, please wait: the database is being brought to a known state")
            return
        canceller.received = number
        raise Interrupt(number)

    def watch() -> None:
        while received := reader.recv(64):
            if set(received) & set(_SIGNALS):
                # A nudge just before a system call is lost, as is a cancellation that reaches the server just
                # before its statement does.
                while not noticed.is_set():
                    signal.pthread_kill(main_thread, _NUDGE)
                    canceller.cancel()
                    noticed.wait(0.2)
                return

    previous = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    previous[_NUDGE] = signal.signal(_NUDGE, lambda *_: None)
    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signal watch", daemon=True)
    thread.start()
    try:
        yield canceller
    except Interrupt as interrupt:
        raise RunInterrupted(f"Interrupted by {interrupt}.", interrupt.number, state=state) from None
    finally:
        noticed.set()
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        writer.close()
        thread.join(timeout=5)
        reader.close()
