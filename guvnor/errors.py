"""The errors of this project.

An error says three things to the person on call: what happened (the message), what state the database is in
(``state``) and what to type next (``next_step``). The docstring of a class is its default message. Only the
command line prints errors, and leaves with their ``exit_code``.
"""

from __future__ import annotations

import inspect


class GuvnorError(Exception):
    """The command failed."""

    exit_code = 1
    state: str | None = None
    next_step: str | None = None

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
        super().__init__(self.message)


class ConfigurationError(GuvnorError):
    """The configuration is not usable."""

    exit_code = 2
    state = "No connection was made; the database is unchanged."
    next_step = "guvnor config show"


class UsageError(GuvnorError):
    """The command was called in a way that has no meaning."""

    exit_code = 2
    state = "The database is unchanged."
    next_step = "guvnor migrate --help"


class LocalServerError(GuvnorError):
    """The local PostgreSQL server could not be used."""

    exit_code = 3
    next_step = "guvnor db status"


class PreflightError(GuvnorError):
    """A pre-flight check failed."""

    exit_code = 3
    state = "The database is unchanged."
    next_step = "guvnor migrate preflight"


def last_lines(text: str, count: int = 12) -> str:
    """Cut what a program printed down to its end, indented for a message."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-count:]) or "  (nothing was printed)"
