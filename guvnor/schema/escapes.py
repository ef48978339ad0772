"""Notices a statement that reaches out of the shadow in which it should build.

What a statement locks stays locked until the end of the transaction, so ``pg_locks`` shows it. A look costs
more the more locks there are: while looks are cheap, one rides along with every statement, in the same round
trip; once they are expensive, they take at most a fortieth of the time.

By then a statement has had its lock for as long as it ran, and the application waits behind it. So one that
names a table which only the live schema has may run for a tenth of a second, and is looked at directly.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from psycopg2 import extensions

from guvnor.postgres import Connection, rows
from guvnor.postgres.excerpt import redacted
from guvnor.schema.shadow_errors import ESCAPED, STATEMENT_TIMEOUT, ShadowEscapeError

_CHEAP_LOOK = 0.002  # seconds
_LOOK_SHARE = 39  # how many times as long as an expensive look the statements run until the next one
_NAMES = re.compile(r'"((?:[^"]|"")+)"|([^\W\d][\w$]*)')
_TIMED = 16  # after one statement in so many, the look is a round trip of its own, to measure what it costs

# Planned once, since it runs after every statement. The relations that were there before are a list, so that
# none of the many locks on the shadow's own relations has to be looked up. A lock on what a statement made
# outside of the shadow keeps nobody out; it is looked for ($1) while that is cheap, and at the end.
PREPARED_LOOK = "guvnor_shadow_look"
_PREPARE_LOOK = f"""
    PREPARE {PREPARED_LOOK} (boolean) AS
    SELECT l.relation::bigint, l.relation::regclass::text, l.mode,
           NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = l.relation)
    FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode <> 'AccessShareLock'
      AND (l.relation = ANY (%(outside)s::oid[])
           OR $1 AND l.relation >= 16384 AND EXISTS (
               SELECT FROM pg_catalog.pg_class AS c
               WHERE c.oid = l.relation AND c.relnamespace <> %(shadow)s AND c.relpersistence <> 't'
                 AND c.relnamespace <> 'pg_toast'::regnamespace))
    UNION ALL
    SELECT NULL, current_setting('search_path'), pg_current_xact_id_if_assigned()::text, false
"""
_LOOK = f"EXECUTE {PREPARED_LOOK} ({{}})"


class EscapeGuard:
    """Checks after each statement whether it stayed within the shadow.

    :ivar off: whether the checks are off for now.
    :ivar doing: what is being run, in words for an error.
    :ivar statements: those that were run while the checks were on.
    :ivar limited: whether the statement that is running is stopped after a moment.
    """

    def __init__(self, driver: Connection, shadow: int) -> None:
        """Remember what is there before the first statement.

        :param driver: in the transaction, with its ``search_path`` set.
        :param shadow: the oid of the schema.
        """
        self.off = False
        self.doing = "the models"
        self.statements: list[str] = []
        self._driver = driver
        self._looked_at = 0.0
        self._cost = 0.0
        self.limited = False
        sql = """
            SELECT pg_current_xact_id()::text, current_setting('search_path'),
                   ARRAY(SELECT oid::bigint FROM pg_class WHERE oid >= 16384),
                   ARRAY(SELECT relname::text FROM pg_class
                         WHERE relnamespace = to_regnamespace('public')
                           AND relkind IN ('r', 'p', 'm', 'f', 'v'))
            """
        ((self._transaction, self._search_path, outside, names),) = rows(driver, sql)
        self._live = frozenset(names)
        with driver.cursor() as cursor:
            cursor.execute(_PREPARE_LOOK, {"shadow": shadow, "outside": outside})

    def execute(self, statement: str) -> None:
        """Run a statement and look; raises what :meth:`inspect` does."""
        self.before_statement(statement)
        cheap = self._cost < _CHEAP_LOOK
        rides_along = not self.off and not self.limited and cheap and len(self.statements) % _TIMED
        if rides_along:
            self.statements.append(statement)
            # On a line of its own, since the statement may end in a comment.
            self._judge(rows(self._driver, f"{statement}\n;{_LOOK.format(True)}"))
            return
        with self._driver.cursor() as cursor:
            cursor.execute(statement)
        self.after_statement(statement)

    def before_statement(self, statement: str) -> None:
        """Let a statement that names a table which only the live schema has run for a moment at most."""
        if self.off:
            return
        limited = bool(self._only_live(statement))
        if limited or self.limited:  # the statement before may have failed
            self._limit(limited)

    def _limit(self, limited: bool) -> None:
        with self._driver.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT if limited else 0}'")
        self.limited = limited

    def _only_live(self, statement: str) -> list[str]:
        """Return the names of tables in a statement that it would find outside of the shadow."""
        named = {
            quoted.replace('""', '"') if quoted else bare.lower()
            for quoted, bare in _NAMES.findall(statement)
        }
        named = {name for name in named & self._live if not _makes(statement, name)}
        if not named:
            return []
        sql = """
            SELECT name FROM unnest(%s::text[]) AS named (name)
            WHERE to_regclass(quote_ident(name)) = to_regclass('public.' || quote_ident(name))
            """
        return [name for (name,) in rows(self._driver, sql, (sorted(named),))]

    def after_statement(self, statement: str) -> None:
        """Remember a statement that was run, and look, unless looks are expensive and one was made just now.

        :raises ShadowEscapeError: see :meth:`inspect`.
        """
        if self.off:
            return
        self.statements.append(statement)
        ended = self._driver.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE
        cheap = self._cost < _CHEAP_LOOK
        if ended or cheap or self.limited or time.monotonic() - self._looked_at > _LOOK_SHARE * self._cost:
            self.inspect(thorough=ended or cheap)
        if self.limited:
            self._limit(False)

    def inspect(self, *, thorough: bool = True) -> None:
        """Look at ``pg_locks``.

        :param thorough: whether to look for what was made outside of the shadow, too.
        :raises ShadowEscapeError: on any lock but ACCESS SHARE on a relation that was there before, and when
            the transaction or the ``search_path`` is another one.
        """
        if self._driver.info.transaction_status == extensions.TRANSACTION_STATUS_INERROR:
            return  # the error itself is about to be raised
        began = time.monotonic()
        found = rows(self._driver, _LOOK.format(thorough))
        self._looked_at = time.monotonic()
        self._cost = self._looked_at - began
        self._judge(found)

    def _judge(self, found: Sequence[tuple[Any, ...]]) -> None:
        *locks, (_, search_path, transaction, _) = found
        if locks:
            # A table that existed before says more than what was created on it.
            oid, name, mode, gone = min(locks)
            raise self._escape(f"took {lock_name(mode)} on {f'a table (oid {oid})' if gone else name}")
        if transaction != self._transaction:
            raise self._escape("ended the transaction")
        if search_path != self._search_path:
            raise self._escape("changed the search_path")

    def _escape(self, what: str) -> ShadowEscapeError:
        statement = " ".join(redacted(self.statements[-1]).split()) if self.statements else ""
        return ShadowEscapeError(
            f"While the expected schema was built, {self.doing} {what}, outside of it. "
            f"Statement: {statement[:200]}",
            next_step=ESCAPED,
        )

    def end(self) -> None:
        """Drop the prepared look and what revisions have prepared; the transaction is over."""
        self.off = True
        with self._driver.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL; SELECT pg_advisory_unlock_all()")


def _makes(statement: str, name: str) -> bool:
    """Tell whether a statement makes a table or view of a name, in the shadow, which comes first."""
    kind = r"(UNLOGGED\s+|FOREIGN\s+)?TABLE|(OR\s+REPLACE\s+)?(RECURSIVE\s+|MATERIALIZED\s+)?VIEW"
    made = rf"""\bCREATE\s+({kind})\s+(IF\s+NOT\s+EXISTS\s+)?("{re.escape(name)}"|{re.escape(name)}\b)"""
    return re.search(made, statement, re.IGNORECASE) is not None


def lock_name(mode: str) -> str:
    """Return the SQL name of a lock mode: ``AccessExclusiveLock`` is ``ACCESS EXCLUSIVE``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
