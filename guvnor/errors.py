"""The errors of this project.

An error says three things to the person on call: what happened (the message), what state the database is in
(``state``) and what to type next (``next_step``). The docstring of a class is its default message. Only the
command line prints errors, and leaves with their ``exit_code``.
"""

from __future__ import annotations

import inspect
from enum import IntEnum

from guvnor import typed


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1  # the database is as it was before, or as the message says
    USAGE = 2  # wrong usage or configuration
    PREFLIGHT = 3  # pre-flight failed: connection, permission, files
    REFUSED = 4  # by the production guard
    DECISION = 5  # dirty, or the version tables disagree
    DRIFT = 6  # drift, or a finding of a report
    LOCKED = 7  # a lock was not acquired in time
    PENDING = 8  # migrations are pending (status --exit-code)
    STALLED = 9  # a revision was stopped, since it would make the application wait
    INTERRUPTED = 130  # by SIGINT
    TERMINATED = 143  # by SIGTERM


class GuvnorError(Exception):
    """The command failed."""

    exit_code: ExitCode = ExitCode.FAILED
    state: str | None = None
    next_step: str | None = None
    repeat_when: str | None = None  # where given, the next step is the command that was typed

    def __init__(
        self, message: str | None = None, *, state: str | None = None, next_step: str | None = None
    ) -> None:
        """Make an error.

        :param message: what happened, in one or more sentences; the class's docstring when left out.
        :param state: what state the database is in.
        :param next_step: what to type next; several lines are several commands.
        """
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        if state is not None:
            self.state = state
        if next_step is not None:
            self.next_step = next_step
        elif self.repeat_when is not None:
            self.next_step = typed.again(when=self.repeat_when)
        super().__init__(self.message)


class ConfigurationError(GuvnorError):
    """The configuration is not usable."""

    exit_code = ExitCode.USAGE
    state = "No connection was made; the database is unchanged."
    next_step = "guvnor config show"


class UsageError(GuvnorError):
    """The command was called incorrectly."""

    exit_code = ExitCode.USAGE
    state = "The database is unchanged."
    next_step = "guvnor migrate --help"


class LocalServerError(GuvnorError):
    """The local PostgreSQL server could not be used."""

    exit_code = ExitCode.PREFLIGHT
    next_step = "guvnor db status"


class PreflightError(GuvnorError):
    """A pre-flight check failed."""

    exit_code = ExitCode.PREFLIGHT
    state = "The database is unchanged."
    next_step = "guvnor migrate preflight"


def reason(error: Exception) -> str:
    """Return what an error says, for a log record or a sentence about what could not be done."""
    return error.message if isinstance(error, GuvnorError) else str(error).strip()


def last_lines(text: str, count: int = 12) -> str:
    """Return the last lines that a program printed, indented for a message."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-count:]) or "  (nothing was printed)"
