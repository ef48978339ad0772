"""The rules about what protects the data: triggers that fire, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator

from guvnor.lint import tables
from guvnor.lint.parsing import nodes, set_by_calls
from guvnor.lint.problem import Violation
from guvnor.lint.revision import RevisionSource
from guvnor.lint.rule import RevisionRule

_SWITCHED = {
    "AT_DisableTrig": "DISABLE TRIGGER",
    "AT_DisableTrigAll": "DISABLE TRIGGER ALL",
    "AT_DisableTrigUser": "DISABLE TRIGGER USER",
    "AT_EnableReplicaTrig": "ENABLE REPLICA TRIGGER",
    "AT_DisableRule": "DISABLE RULE",
    "AT_EnableReplicaRule": "ENABLE REPLICA RULE",
}
_REPLICATION_ROLE = "session_replication_role"


def _switched_off(source: RevisionSource) -> Iterator[Violation]:
    for statement, new in tables.in_order(source):
        for command in tables.commands(statement):
            if (words := _SWITCHED.get(command["subtype"])) and tables.target(statement) not in new:
                yield statement.violation(f"{words} on {tables.target(statement)}: it no longer fires.")
        names = [statement.node.get("name", "").lower()] if statement.kind == "VariableSetStmt" else []
        if _REPLICATION_ROLE in (*names, *set_by_calls(statement)) and "RESET" not in statement.node.get(
            "kind", ""
        ):
            yield statement.violation(
                f"The revision sets {_REPLICATION_ROLE}: no trigger fires, no key is checked."
            )


def _owned(source: RevisionSource) -> Iterator[Violation]:
    for statement in source.statements:
        if statement.kind == "DropOwnedStmt":
            yield statement.violation(
                "DROP OWNED drops whatever the role owns on that server, and its rights."
            )
        if statement.kind == "ReassignOwnedStmt":
            yield statement.violation("REASSIGN OWNED changes whatever the role owns on that server.")


def _granted_to_all(source: RevisionSource) -> Iterator[Violation]:
    for statement in source.statements:
        # ALTER DEFAULT PRIVILEGES holds the grant in its action.
        node = statement.node.get("action", statement.node)
        if statement.kind not in ("GrantStmt", "AlterDefaultPrivilegesStmt") or not node.get("is_grant"):
            continue
        if any(role.get("roletype") == "ROLESPEC_PUBLIC" for role in nodes(node["grantees"], "RoleSpec")):
            yield statement.violation("PUBLIC is every role, now and later.")


TRIGGERS_STAY_ON = RevisionRule(
    "triggers-stay-on",
    "Triggers and rules of a table in use are not switched off.",
    "What the application or the revision writes meanwhile passes the trigger by. DISABLE TRIGGER ALL and "
    "`session_replication_role` switch foreign keys off, too: rows may refer to nothing, and nobody checks "
    "them later.",
    "Delete the statement. Let the trigger's function decide by the row, or replace the function.",
    """\
op.execute("ALTER TABLE schedules DISABLE TRIGGER USER")""",
    """\
op.execute("ALTER TABLE schedules ENABLE TRIGGER USER")""",
    _switched_off,
)

NO_DROP_OWNED = RevisionRule(
    "no-drop-owned",
    "A revision names what it drops: neither DROP OWNED nor REASSIGN OWNED.",
    "What a role owns differs from server to server, so nobody can say in advance what the statement does.",
    "Name the objects.",
    'op.execute("DROP OWNED BY CURRENT_USER")',
    'op.execute("DROP VIEW IF EXISTS open_incidents")  # lint: ignore ban-drop-view: written by hand once',
    _owned,
)

NO_GRANT_TO_PUBLIC = RevisionRule(
    "no-grant-to-public",
    "Nothing is granted to PUBLIC.",
    "PUBLIC is every role of the server, those of other applications and later ones included. A REVOKE from "
    "one role does not take the right away from it.",
    "Name the role.",
    'op.execute("GRANT SELECT ON schedules TO PUBLIC")',
    'op.execute("GRANT SELECT ON schedules TO CURRENT_USER")',
    _granted_to_all,
)

RULES = (TRIGGERS_STAY_ON, NO_DROP_OWNED, NO_GRANT_TO_PUBLIC)
