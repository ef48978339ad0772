"""SIGINT and SIGTERM: cancel on the server, roll back, report it, and exit with 130 or 143.

Python runs a signal's handler only when the main thread returns from the statement or the system call that
blocks it. So the signal's number is also written to a pipe (``signal.set_wakeup_fd``), from which a thread
reads it. Until the handler has run, that thread cancels what runs on the server (SQLSTATE 57014; the
connections stay usable) and interrupts the system call, which may have begun just after the signal came.

A server that cannot be reached answers neither a statement nor a cancellation. So the signal sets a deadline.
Then the connections are cut, which ends every wait for the server; the run ends as after a lost connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, TracebackType

from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, cancellation

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Seconds from the signal on. Docker kills a container after 10 s, Kubernetes a pod after 30 s.
_DEADLINE = 7.0
_LAST = 2.0  # seconds that remain to explain the end
_SETTLED = 1.0  # seconds to wait for a cancellation that is on its way

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

    repeat_when = ""

    def __init__(
        self, message: str, number: int, *, state: str | None = None, next_step: str | None = None
    ) -> None:
        """Take the exit code from the signal: 130 for SIGINT, 143 for SIGTERM."""
        super().__init__(message, state=state, next_step=next_step)
        self.exit_code = ExitCode(128 + number)


@dataclass
class Canceller:
    """Cancels what runs on its connections when the first signal arrives.

    :ivar received: the signal's number; None while there is none.
    """

    connections: list[Connection] = field(default_factory=list)
    received: int | None = None
    _cancelling: threading.Lock = field(default_factory=threading.Lock, init=False)

    def cancel(self) -> None:
        """Cancel the running statement of each connection; nothing happens on an idle one."""
        with self._cancelling:
            for connection in list(self.connections):
                cancellation.cancel(connection)

    def check(self) -> None:
        """Raise the interrupt of a signal that has arrived: psycopg2 drops one while it reads a message.

        :raises Interrupt: when one has arrived.
        """
        if self.received is not None:
            raise Interrupt(self.received)

    def settle(self) -> None:
        """Wait for a cancellation that is on its way, so that it does not hit the next statement."""
        if self._cancelling.acquire(timeout=_SETTLED):
            self._cancelling.release()

    def cut(self) -> None:
        """Cut each connection, so that nothing waits for its server any more."""
        for connection in list(self.connections):
            cancellation.cut(connection)


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
    noticed, ended = threading.Event(), threading.Event()
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
            if numbers := set(received) & set(_SIGNALS):
                deadline = threading.Thread(target=leave, args=(min(numbers),), name="deadline", daemon=True)
                deadline.start()
                # A nudge just before a system call is lost, as is a cancellation that reaches the server just
                # before its statement does.
                while not noticed.is_set():
                    signal.pthread_kill(main_thread, _NUDGE)
                    canceller.cancel()
                    noticed.wait(0.2)
                return

    def leave(number: int) -> None:
        if ended.wait(_DEADLINE):
            return
        log.warning(
            f"the server did not answer within {_DEADLINE:.0f} s of {signal.Signals(number).name}, so the "
            "connections are cut: a statement may still run there, and the history may lack how the run ended"
        )
        canceller.cut()
        if not ended.wait(_LAST):
            code, state = 128 + number, "Unknown: what was running may have been committed or rolled back."
            end = {"exit_code": code, "state": state, "next": "guvnor migrate status"}
            log.error("the command leaves without having cleaned up", extra=end)
            os._exit(code)

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # psycopg2 prints and drops one that arrives while Python decodes a message for it.
        if not issubclass(kind, Interrupt):
            previous_hook(kind, error, trace)

    previous_hook, sys.excepthook = sys.excepthook, show
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
        ended.set()
        sys.excepthook = previous_hook
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        writer.close()
        thread.join(timeout=5)
        reader.close()
