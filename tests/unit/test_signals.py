"""A signal interrupts what blocks the main thread, also where the operating system does not."""

import os
import signal
import threading

import pytest

from guvnor.errors import ExitCode
from guvnor.migrate import signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_interrupts_no_system_call_is_noticed(number):
    # One that comes just before a system call does not interrupt it, and neither does one that another thread
    # receives: the call goes on, and Python runs no handler until it returns.
    reader, writer = os.pipe()
    started = threading.Event()

    def send() -> None:
        started.wait(10)
        signal.pthread_kill(threading.get_ident(), number)

    def wait() -> None:
        with signals.interruptible("Nothing was changed."):
            started.set()
            os.read(reader, 100)

    end = threading.Timer(10, os.write, (writer, b"too late"))
    sender = threading.Thread(target=send)
    handlers = {each: signal.getsignal(each) for each in signal.valid_signals()}
    end.start()
    sender.start()
    try:
        with pytest.raises(signals.RunInterrupted) as raised:
            wait()
        assert end.is_alive(), "only the end of the system call let the handler run"
    finally:
        end.cancel()
        sender.join()
        os.close(reader)
        os.close(writer)
    assert raised.value.exit_code == ExitCode(128 + number)
    assert {each: signal.getsignal(each) for each in signal.valid_signals()} == handlers
