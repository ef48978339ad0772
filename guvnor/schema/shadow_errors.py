"""Why an expected schema could not be built."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
from psycopg2 import errorcodes

from guvnor import typed
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres.excerpt import redacted
from guvnor.postgres.quoting import identifier

_WRONG_SQL = (
    errorcodes.SYNTAX_ERROR,
    errorcodes.UNDEFINED_TABLE,
    errorcodes.UNDEFINED_COLUMN,
    errorcodes.UNDEFINED_FUNCTION,
    errorcodes.UNDEFINED_OBJECT,
    errorcodes.DUPLICATE_TABLE,
    errorcodes.DUPLICATE_COLUMN,
    errorcodes.DUPLICATE_OBJECT,
    errorcodes.DATATYPE_MISMATCH,
)
LOCK_TIMEOUT = "50ms"  # of the statements that build a shadow
STATEMENT_TIMEOUT = "100ms"  # of those that name a table outside of it


def another_server() -> str:
    """Return the next step where another server of the same major version can do it."""
    return typed.again("GUVNOR_SHADOW_DSN=postgres://USER@HOST/SCRATCH_DATABASE")


class ShadowError(GuvnorError):
    """The expected schema could not be built."""

    state = "The database is unchanged: everything was rolled back."
    next_step = "Correct the revision, and try it on the local server: guvnor db start"


class ShadowUnavailableError(ShadowError):
    """The expected schema cannot be built on this server; another one of the same major version can do it."""

    exit_code = ExitCode.PREFLIGHT

    def __init__(self, message: str | None = None, *, next_step: str | None = None) -> None:
        """Say what stands in the way."""
        super().__init__(message, next_step=next_step or another_server())


class ShadowBusyError(ShadowError):
    """The expected schema could not be built: another session held a lock for too long."""

    exit_code = ExitCode.LOCKED
    repeat_when = "once that session (such as VACUUM of a catalog) is done"


class RevisionFailsError(ShadowError):
    """A revision fails wherever it is run, whatever the rows are: its SQL is wrong.

    :ivar doing: which one, in words: ``revision 003``.
    """

    doing = ""


ESCAPED = (
    "Name objects without their schema, look for them in current_schema() only, and leave transactions to "
    "the tool."
)


class ShadowEscapeError(ShadowError):
    """A revision reached for an object outside of the schema that is being built."""


@dataclass(frozen=True)
class EventTriggers:
    """The event triggers that fire for what is built, each with its function.

    :ivar role: who builds.
    :ivar suppressed: whether the role has suppressed those that can be suppressed.
    """

    names: tuple[str, ...] = ()
    role: str = ""
    suppressed: bool = True


def build_error(
    error: psycopg2.Error | AssertionError | ShadowEscapeError,
    doing: str | None,
    triggers: EventTriggers = EventTriggers(),
) -> ShadowError:
    """Return what the failure of a statement means.

    :param doing: what was being run, such as ``revision 002``; None while the schema itself was made.
    :param triggers: which may have failed, or reached out, instead of the statement.
    """
    result = error if isinstance(error, ShadowEscapeError) else _statement_failed(error, doing)
    if not triggers.names:
        return result
    grant = f"As a superuser: GRANT SET ON PARAMETER session_replication_role TO {identifier(triggers.role)};"
    return ShadowUnavailableError(
        f"{result.message} Event triggers of this database fire for what is built, so the reason may be "
        f"{' or '.join(triggers.names)}.",
        next_step=another_server() if triggers.suppressed else f"{another_server()}\nor {grant}   # since 15",
    )


def python_failed(error: BaseException, doing: str) -> ShadowError:
    """Return what an exception of a revision's Python means.

    :param doing: what was being run, such as ``revision 002``.
    """
    reason = redacted(f"{type(error).__name__}: {error}")
    return ShadowError(f"The expected schema could not be built: {doing} failed: {reason}.")


def _statement_failed(error: psycopg2.Error | AssertionError, doing: str | None) -> ShadowError:
    if isinstance(error, AssertionError):
        code, reason = None, "it leaves its transaction (autocommit_block); use the online operations instead"
    else:
        code, reason = error.pgcode, error.diag.message_primary or " ".join(str(error).split())
    if code == errorcodes.OUT_OF_MEMORY:
        return ShadowUnavailableError(
            "The expected schema needs more locks than this server has room for (max_locks_per_transaction)."
        )
    if doing is None and code == errorcodes.INSUFFICIENT_PRIVILEGE:
        return ShadowUnavailableError(
            f"The expected schema is built in a schema of its own, which this role may not create: {reason}.",
            next_step=f"{another_server()}\nor, as the database's owner: GRANT CREATE ON DATABASE ... TO ...",
        )
    if doing is None and code in (errorcodes.READ_ONLY_SQL_TRANSACTION, errorcodes.FEATURE_NOT_SUPPORTED):
        return ShadowUnavailableError(f"The expected schema cannot be built on a read-only server: {reason}.")
    doing = doing or "the schema"
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return ShadowBusyError(
            f"The expected schema could not be built: {doing} waited more than {LOCK_TIMEOUT} for a lock."
        )
    if code == errorcodes.QUERY_CANCELED:
        return ShadowEscapeError(
            f"While the expected schema was built, {doing} reached for a table outside of it, and was "
            f"stopped after {STATEMENT_TIMEOUT}.",
            next_step=ESCAPED,
        )
    failed = ShadowError(f"The expected schema could not be built: {doing} failed: {redacted(reason)}.")
    if code in _WRONG_SQL:
        failed = RevisionFailsError(failed.message)
        failed.doing = doing
    return failed
