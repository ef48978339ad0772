"""Privileges: which ones neither the defaults nor the configuration explain, and how they are reconciled."""

from __future__ import annotations

from collections import defaultdict
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

# What default privileges call the kinds (PostgreSQL documentation, ALTER DEFAULT PRIVILEGES).
_OBJECTS = {
    "table": "tables", "view": "tables", "materialized view": "tables", "foreign table": "tables",
    "sequence": "sequences", "function": "functions", "procedure": "functions", "aggregate": "functions",
    "type": "types",
}  # fmt: skip

_DEMANDED = ("USAGE", "CREATE")  # on the schema, see guvnor.migrate.preflight


class Allowed:
    """What the default privileges of a database and the configuration allow."""

    def __init__(self, actual: Snapshot, grantees: Sequence[str]) -> None:
        """Collect the default privileges.

        :param grantees: glob patterns of roles that the configuration names.
        """
        self._grantees = tuple(grantees)
        # The pre-flight checks demand these of whoever migrates.
        self._needed = {f"{role}={right}" for role in actual.roles - {"PUBLIC"} for right in _DEMANDED}
        self._given: defaultdict[str, set[str]] = defaultdict(set)
        self._taken: defaultdict[str, set[str]] = defaultdict(set)
        for default in actual.of_kind("default privileges"):
            objects = default.identity.partition(" ")[0]
            self._given[objects] |= default.granted
            self._taken[objects] |= default.revoked

    def unexpected(
        self, item: Object, granted: frozenset[str], revoked: frozenset[str] = frozenset()
    ) -> list[str]:
        """Return the privileges that are granted on an object and should not be.

        :param granted: what is expected beyond the kind's default.
        :param revoked: what is expected to be taken from the kind's default.
        """
        given = self._given[_OBJECTS.get(item.kind, "")]
        if item.kind == "schema":
            given = given | self._needed
        return self._unnamed((item.granted - granted - given) | (revoked - item.revoked))

    def missing(self, item: Object, granted: frozenset[str], revoked: frozenset[str]) -> list[str]:
        """Return the privileges that should be there and are not."""
        objects = _OBJECTS.get(item.kind, "")
        # Default privileges of the role that built the shadow are not what the revision asks for.
        wanted = granted - item.granted - self._given[objects]
        return self._unnamed(wanted | (item.revoked - revoked - self._taken[objects]))

    def _unnamed(self, entries: frozenset[str]) -> list[str]:
        """Sort entries, and leave out those of roles that the configuration names."""
        roles = {entry: entry.rpartition("=")[0].strip('"') for entry in entries}
        return sorted(e for e in entries if not any(fnmatchcase(roles[e], p) for p in self._grantees))


def reconciling(
    item: Object, missing: Sequence[str], unexpected: Sequence[str], roles: frozenset[str]
) -> str | None:
    """Return the GRANT and REVOKE statements; None where there are none.

    :param roles: see :class:`guvnor.schema.snapshot.Snapshot`; a session that takes rights from these may
        lock itself out, so no statement does.
    """
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
        name, option, _ = entry.partition(" WITH GRANT OPTION")
        role, _, privilege = name.rpartition("=")
        role = role.replace("<owner>", identifier(owner))
        what = f"{privilege}{column} ON {kind} {target}"
        revoke = number < len(unexpected)
        if revoke and role in roles and (role != "PUBLIC" or item.kind == "schema"):
            continue
        statements.append(f"REVOKE {what} FROM {role}" if revoke else f"GRANT {what} TO {role}{option}")
    return terminated(statements) or None
