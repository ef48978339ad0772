"""A schema as values: its objects, each with the attributes that PostgreSQL prints for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property
from typing import Any

# Objects of these kinds share one namespace in PostgreSQL (pg_class).
_RELATIONS = frozenset({"table", "view", "materialized view", "foreign table"})

# What is dropped with its table, which is the first of its parents.
OF_TABLES = ("column", "constraint", "index", "trigger", "rule", "policy", "statistics", "sequence")


def handle(kind: str, identity: str) -> str:
    """Return the key of an object; tables and views are all ``relation``, for what depends on them."""
    return f"{'relation' if kind in _RELATIONS else kind}:{identity}"


@dataclass(frozen=True)
class Object:
    """One object of a schema.

    :ivar kind: such as ``table``, ``column``, ``index``, ``trigger``.
    :ivar identity: its name as SQL writes it, with its table before it where it has one: ``incidents.title``.
    :ivar attributes: what is compared, by the words that a report uses.
    :ivar parents: handles of what it is dropped with: its table, its columns, the function that it calls.
    :ivar sql: the statement that makes it, as the server prints it; None where the server prints none.
    :ivar granted: privileges beyond the kind's default, as ``role=PRIVILEGE``; ``<owner>`` is its owner.
    :ivar revoked: privileges of the kind's default that are taken away.
    :ivar inherited_from: handles of what a partition or a child table has it from, of the table right above;
        empty for what is its own.
    :ivar inherited: the attributes that follow those of what is above.
    """

    kind: str
    identity: str
    attributes: Mapping[str, Any]
    parents: tuple[str, ...] = ()
    sql: str | None = None
    granted: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    inherited_from: tuple[str, ...] = ()
    inherited: frozenset[str] = frozenset()

    @cached_property
    def handle(self) -> str:
        """The key of this object in a snapshot."""
        return handle(self.kind, self.identity)

    @property
    def name(self) -> str:
        """The last part of the identity."""
        parent = next((p.partition(":")[2] + "." for p in self.parents), None)
        return self.identity.removeprefix(parent) if parent else self.identity

    def __str__(self) -> str:
        """Return kind and identity, as a report names it."""
        return f"{self.kind} {self.identity}"


@dataclass(frozen=True)
class Snapshot:
    """All objects of a schema at one moment.

    :ivar objects: by handle.
    :ivar owner: the role that owns the bookkeeping table ``alembic_version``; None where there is none.
    :ivar available: the extensions that this server could install.
    :ivar roles: the roles whose rights on the schema are needed for migrating, as SQL writes them: the
        owner of the bookkeeping, that of the session that read it, those that it inherits from, and
        ``PUBLIC`` where without that it could not create objects.
    """

    objects: Mapping[str, Object]
    owner: str | None = None
    available: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Object]:
        """Go through the objects."""
        return iter(self.objects.values())

    def of_kind(self, *kinds: str) -> list[Object]:
        """Return the objects of some kinds."""
        return [found for found in self if found.kind in kinds]

    def without(self, patterns: Sequence[str]) -> Snapshot:
        """Leave out what matches a glob pattern, and what belongs to it; see :func:`matcher`."""
        if not patterns:
            return self
        left_out = matcher(patterns)
        return replace(self, objects={key: item for key, item in self.objects.items() if not left_out(item)})


def matcher(patterns: Sequence[str]) -> Callable[[Object], bool]:
    """Return what tells whether an object, or what it belongs to, matches a glob pattern.

    A pattern is compared with the identity (``audit_*``), with kind and identity (``index:*_tmp``), and with
    both of the first parent.
    """
    # A pattern without wildcards is a name, and looking up a name among many is quick.
    names = {pattern for pattern in patterns if not re.search(r"[*?\[]", pattern)}
    globs = [translate(pattern) for pattern in patterns if pattern not in names]
    matches = re.compile("|".join(globs)).match if globs else None

    def left_out(item: Object) -> bool:
        own = (item.handle, item.identity, f"{item.kind}:{item.identity}")
        above = item.parents[:1]
        candidates = (*own, *above, *(parent.partition(":")[2] for parent in above))
        return not names.isdisjoint(candidates) or (matches is not None and any(map(matches, candidates)))

    return left_out
