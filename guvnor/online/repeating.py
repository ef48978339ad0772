"""Doing something again and again while a statement runs on another connection, or other work goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(name: str, interval: float, work: Callable[[], bool]) -> Iterator[None]:
    """Do something in a thread while the body runs.

    :param name: of the thread.
    :param interval: seconds before each time.
    :param work: returns whether to go on.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(interval) and work():
            pass

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
