"""Who is in the way: how each kind is named and ended, and where a run knocks."""

from __future__ import annotations

from guvnor.online.blockers import Autovacuum, Blocker, PreparedTransaction, named
from guvnor.online.knock import Knock
from guvnor.online.lock_modes import CONFLICTS

IDLE = Blocker(7, "app", "report", "idle in transaction", 5.2, "SELECT", "incidents", 100)
VACUUM = Autovacuum(8, None, "", "active", 30.0, "AUTOVACUUM", "incidents", 100)
HIDDEN = Autovacuum(9, None, None, None, None, "INSUFFICIENT", "events", 101)
WRAPAROUND = Autovacuum(10, None, "", "active", 3.0, "AUTOVACUUM", "audit_logs", 102, gives_way=False)
PREPARED = PreparedTransaction(0, "app", None, None, 60.0, None, "incidents", 100, gid="it's")


def test_each_kind_is_named_with_its_table() -> None:
    assert str(IDLE) == (
        "pid 7 on incidents (role app, report, idle in transaction, transaction open for 5 s, "
        "last command SELECT)"
    )
    assert str(VACUUM) == "an autovacuum on incidents (pid 8, for 30 s)"
    assert str(HIDDEN) == "an autovacuum on events (pid 9)"
    assert str(WRAPAROUND) == (
        "an autovacuum on audit_logs "
        "(pid 10, for 3 s, to prevent transaction ID wraparound: it does not give way)"
    )
    assert str(PREPARED) == "the prepared transaction 'it''s' on incidents (role app, prepared 60 s ago)"
    assert named((IDLE, HIDDEN)) == f"{IDLE}; {HIDDEN}"
    assert named(()) == "a session that was gone before it could be named"


def test_each_kind_is_ended_in_its_own_way() -> None:
    assert IDLE.way_out.startswith("SELECT pg_terminate_backend(7);")
    assert Blocker(7, "app", "", "active", 1.0, "SELECT").way_out.startswith("SELECT pg_cancel_backend(7);")
    asked = Blocker(7, "app", "", "active", 1.0, "SELECT", first="Ask a superuser to run: ")
    assert asked.way_out.startswith("Ask a superuser to run: SELECT pg_cancel_backend(7);")
    assert PREPARED.way_out.startswith("ROLLBACK PREPARED 'it''s';")
    for autovacuum in (VACUUM, HIDDEN, WRAPAROUND):  # only a superuser may cancel it
        assert "pg_cancel" not in autovacuum.way_out
        assert "pg_terminate" not in autovacuum.way_out


def test_a_run_knocks_where_an_autovacuum_gives_way() -> None:
    knock = Knock()
    knock.learn(None, None, (IDLE, PREPARED, WRAPAROUND))
    assert knock.relations == []
    knock.learn(None, None, (HIDDEN,))
    knock.learn(None, None, (VACUUM, HIDDEN))
    assert knock.relations == [101, 100]


def test_locks_conflict_with_each_other() -> None:
    """The documentation's table is symmetric."""
    for mode, others in CONFLICTS.items():
        assert all(mode in CONFLICTS[other] for other in others)
    assert CONFLICTS["AccessExclusiveLock"] == list(CONFLICTS)
    assert CONFLICTS["AccessShareLock"] == ["AccessExclusiveLock"]
    assert "ShareUpdateExclusiveLock" in CONFLICTS["ShareUpdateExclusiveLock"]
    assert "RowExclusiveLock" not in CONFLICTS["ShareUpdateExclusiveLock"]
