"""Where does a generated revision begin another transaction?"""

from __future__ import annotations

from guvnor.autogenerate.emitted_operations import EmittedOperation, Phase, execute
from guvnor.autogenerate.transactions import apart


def on(table: str, *, slow: bool = False, phase: Phase = Phase.CHANGE, what: str = "x") -> EmittedOperation:
    remarks = (f"LOCKS {table} while all its rows are read or written.",) if slow else ()
    return execute(phase, f"ALTER TABLE {table} {what}", *remarks)


def shown(*operations: EmittedOperation) -> list[str]:
    return [found.arguments[0] if found.arguments else "--" for found in apart(operations)]


def test_what_is_slow_is_alone() -> None:
    assert shown(on("a"), on("b", slow=True), on("c")) == [
        *("ALTER TABLE a x", "--", "ALTER TABLE b x", "--", "ALTER TABLE c x")
    ]
    assert shown(on("a", slow=True), on("b", slow=True)) == ["ALTER TABLE a x", "--", "ALTER TABLE b x"]


def test_what_is_about_the_same_table_stays_with_it() -> None:
    statements = ["ALTER TABLE a y", "ALTER TABLE a x", "ALTER TABLE a z"]
    assert shown(on("a", what="y"), on("a", slow=True), on("a", what="z")) == statements
    after = [*statements, "--", "ALTER TABLE ab x"]
    assert shown(on("a", what="y"), on("a", slow=True), on("a", what="z"), on("ab")) == after


def test_what_prevents_it_is_dropped_in_the_same_transaction() -> None:
    drop = on("b", phase=Phase.DETACH, what="DROP CONSTRAINT c")
    found = shown(drop, on("a"), on("b", slow=True))
    assert found == ["ALTER TABLE a x", "--", "ALTER TABLE b DROP CONSTRAINT c", "ALTER TABLE b x"]


def test_an_online_operation_ends_a_transaction_anyway() -> None:
    online = EmittedOperation(Phase.VALIDATE, "validate_constraint", ("a", "c"))
    last = on("b", slow=True, phase=Phase.REMAKE)
    assert shown(on("a"), online, last) == ["ALTER TABLE a x", "a", "ALTER TABLE b x"]
    assert shown(on("a"), on("c")) == ["ALTER TABLE a x", "ALTER TABLE c x"]
