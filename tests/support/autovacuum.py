"""A table that the server's own autovacuum is at work on, slowed down by its cost settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.observe import wait_for
from tests.support.server import Database, Server

# Every page costs more than the limit, so that the worker sleeps after each.
SLOW = {"vacuum_cost_delay": "100", "vacuum_cost_limit": "1"}
AT_ONCE = {"vacuum_threshold": "0", "vacuum_scale_factor": "0"}


@contextlib.contextmanager
def eager(server: Server) -> Iterator[None]:
    """Let autovacuum look for work every second."""
    server.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    server.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET autovacuum_naptime")
        server.execute("SELECT pg_reload_conf()")


def parameters(of: str = "", **more: str) -> str:
    """Return the storage parameters that make a vacuum slow; ``of`` is ``toast.`` for a TOAST table's."""
    chosen = {**SLOW, **AT_ONCE, **more}
    return ", ".join(f"{of}autovacuum_{name} = {value}" for name, value in chosen.items())


def worker(database: Database, relation: str) -> int:
    """Wait until autovacuum is at work on a relation, and return the worker's pid."""
    found = wait_for(
        f"the autovacuum of {relation}",
        lambda: database.execute(
            """
            SELECT p.pid
            FROM pg_stat_progress_vacuum AS p JOIN pg_stat_activity AS a USING (pid)
            WHERE a.backend_type = 'autovacuum worker' AND p.datname = current_database()
              AND p.relid = %s::regclass
            """,
            [relation],
        ),
        seconds=40,
    )
    return int(found[0][0])


def at_work(database: Database, pid: int, relation: str) -> bool:
    """Whether a worker is still at work on a relation."""
    sql = "SELECT 1 FROM pg_locks WHERE pid = %s AND relation = %s::regclass AND mode LIKE 'ShareUpdate%%'"
    return bool(database.execute(sql, [pid, relation]))


def use_up_transactions(database: Database, count: int) -> None:
    """Use up transaction IDs: each block with an exception clause that writes takes one."""
    database.execute(f"""
        CREATE TABLE used (n integer);
        DO $$ BEGIN
            FOR n IN 1..{count} LOOP
                BEGIN
                    INSERT INTO used VALUES (n);
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
            END LOOP;
        END $$;
        DROP TABLE used;
    """)
