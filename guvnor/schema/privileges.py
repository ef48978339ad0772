"""Privileges: which ones neither the defaults nor the configuration explain, and how they are reconciled."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from guvnor.postgres.quoting import identifier
from guvnor.schema.snapshot import Object, Snapshot
from guvnor.schema.statement import table_of, terminated

# How GRANT calls a kind, where it is not simply its name.
_GRANTED = {
    "view": "TABLE", "materialized view": "TABLE", "foreign table": "TABLE", "column": "TABLE",
    "aggregate": "FUNCTION",
}  # fmt: skip

# The kinds of objects that default privileges are given for (PostgreSQL documentation, ALTER DEFAULT
# PRIVILEGES).
_OBJECTS = {
    "table": "tables", "view": "tables", "materialized view": "tables", "foreign table": "tables",
    "sequence": "sequences", "function": "functions", "procedure": "functions", "aggregate": "functions",
    "type": "types",
}  # fmt: skip


class Allowed:
    """What the default privileges of a database and the configuration allow."""

    def __init__(self, actual: Snapshot, grantees: Sequence[str]) -> None:
        """Collect the default privileges.

        :param grantees: glob patterns of roles that the configuration names.
        """
        self._grantees = tuple(grantees)
        self._given: dict[str, set[str]] = {}
        self._taken: dict[str, set[str]] = {}
        for default in actual.of_kind("default privileges"):
            objects = default.identity.partition(" ")[0]
            self._given.setdefault(objects, set()).update(default.granted)
            self._taken.setdefault(objects, set()).update(default.revoked)

    def unexpected(
        self, item: Object, granted: frozenset[str], revoked: frozenset[str] = frozenset()
    ) -> list[str]:
        """Return the privileges that an object should not give away.

        :param granted: what is expected beyond the kind's default.
        :param revoked: what is expected to be taken from the kind's default.
        """
        given = self._given.get(_OBJECTS.get(item.kind, ""), set())
        beyond = (item.granted - granted - given) | (revoked - item.revoked)
        return sorted(entry for entry in beyond if not self._named(entry))

    def missing(self, item: Object, granted: frozenset[str], revoked: frozenset[str]) -> list[str]:
        """Return the privileges that should be there and are not."""
        objects = _OBJECTS.get(item.kind, "")
        taken = self._taken.get(objects, set())
        # Default privileges of the role that built the shadow are no wish of the revision.
        wanted = granted - item.granted - self._given.get(objects, set())
        return sorted(entry for entry in wanted | (item.revoked - revoked - taken) if not self._named(entry))

    def _named(self, entry: str) -> bool:
        role = entry.rpartition("=")[0].strip('"')
        return any(fnmatchcase(role, pattern) for pattern in self._grantees)


def reconciling(item: Object, missing: Sequence[str], unexpected: Sequence[str]) -> str | None:
    """Return the GRANT and REVOKE statements; None where there are none."""
    owner = item.attributes.get("owner")
    entries = [*unexpected, *missing]
    owners = any(entry.startswith("<owner>=") for entry in entries)
    if item.kind == "default privileges" or (owners and owner is None):
        return None
    target, column = item.identity, ""
    if item.kind == "column":
        target, column = table_of(item), f" ({item.name})"
    kind = _GRANTED.get(item.kind, item.kind.upper())
    statements = []
    for number, entry in enumerate(entries):
        role, _, privilege = entry.removesuffix(" WITH GRANT OPTION").rpartition("=")
        role = role.replace("<owner>", identifier(owner))
        if number < len(unexpected):
            statements.append(f"REVOKE {privilege}{column} ON {kind} {target} FROM {role}")
        else:
            option = " WITH GRANT OPTION" if entry.endswith(" WITH GRANT OPTION") else ""
            statements.append(f"GRANT {privilege}{column} ON {kind} {target} TO {role}{option}")
    return terminated(statements)
