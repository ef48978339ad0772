"""Waiting for replicas: a backfill must not write faster than they replay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from guvnor import typed
from guvnor.errors import ExitCode, GuvnorError
from guvnor.postgres import Connection, rows

_LAG_MOST = 5.0  # seconds that a replica may be behind
_POLL = 1.0  # seconds


class ReplicaLagError(GuvnorError):
    """A replica did not catch up in time."""

    exit_code = ExitCode.LOCKED


@dataclass(frozen=True)
class Replica:
    """A replica, as the primary knows it.

    :ivar name: its application name, by default that of its cluster.
    :ivar address: its host; None on a Unix socket.
    :ivar lag: how many seconds its rows are behind.
    """

    name: str
    address: str | None
    lag: float

    def __str__(self) -> str:
        """Describe it in one phrase."""
        where = f" at {self.address}" if self.address else ""
        return f"replica {self.name}{where}, which is {self.lag:.0f} s behind"


@dataclass(frozen=True)
class ReplicaPolicy:
    """Which replicas are waited for, and how long.

    :ivar ignore: glob patterns of the names or addresses of those that are not, such as one that is delayed
        on purpose.
    :ivar patience: seconds to wait each time.
    """

    ignore: tuple[str, ...] = ()
    patience: float = 600.0

    def wait(self, connection: Connection, report: Callable[[str], None]) -> None:
        """Wait while a replica lags far behind, where the role may see that (``pg_monitor``).

        :param connection: in autocommit mode.
        :param report: is called with what is waited for.
        :raises ReplicaLagError: when one still lags after the time is up.
        """
        deadline = time.monotonic() + self.patience
        while lagging := self._lagging(connection):
            report(f"waiting for {lagging[0]}")
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ReplicaLagError(
                    f"Waited {self.patience:.0f} s for {lagging[0]}.",
                    next_step=typed.again(when="once it has caught up: the backfill goes on where it stopped")
                    + f"\nOr leave it out: GUVNOR_REPLICAS_IGNORE={lagging[0].name}",
                )
            time.sleep(min(_POLL, remaining))

    def _lagging(self, connection: Connection) -> list[Replica]:
        """Return the replicas that are too far behind, the last one first.

        See the PostgreSQL documentation, "pg_stat_replication".
        """
        sql = """
            SELECT application_name, COALESCE(client_hostname, host(client_addr)),
                   EXTRACT(EPOCH FROM replay_lag)::float8
            FROM pg_catalog.pg_stat_replication
            WHERE replay_lag >= make_interval(secs => %s)
            ORDER BY replay_lag DESC
        """
        found = (Replica(*values) for values in rows(connection, sql, (_LAG_MOST,)))
        return [replica for replica in found if not self._ignored(replica)]

    def _ignored(self, replica: Replica) -> bool:
        names = (replica.name, replica.address or "")
        return any(fnmatchcase(name, pattern) for pattern in self.ignore for name in names)
