"""What a revision has to change: the findings of a comparison, turned into changes of the schema."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from guvnor.postgres.quoting import unquoted
from guvnor.schema.compare import differing, outermost
from guvnor.schema.root_causes import Rename, RootCauses
from guvnor.schema.snapshot import OF_TABLES, Object, Snapshot, handle
from guvnor.schema.statement import table_of


@dataclass(frozen=True)
class Alteration:
    """An object that exists before and after, and differs.

    :ivar names: the names of the attributes that differ.
    """

    before: Object
    after: Object
    names: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """The changes from one schema to another.

    :ivar before: the schema before the changes, except for the renames.
    :ivar after: the schema after the changes, except for the renames.
    :ivar back: whether these are the changes of a downgrade.
    :ivar final: the schema after the changes and the renames; None in a downgrade, where renames come first.
    """

    before: Snapshot
    after: Snapshot
    added: Mapping[str, Object]
    dropped: Mapping[str, Object]
    altered: Sequence[Alteration]
    renamed: Sequence[Rename]
    back: bool = False
    final: Snapshot | None = None

    @property
    def reversed(self) -> Changes:
        """The same changes in the other direction."""
        return Changes(
            before=self.after,
            after=self.before,
            added=self.dropped,
            dropped=self.added,
            altered=[Alteration(a.after, a.before, a.names) for a in self.altered],
            renamed=[Rename(r.item, r.after, r.before) for r in reversed(self.renamed)],
            back=not self.back,
        )

    @cached_property
    def tables(self) -> frozenset[str]:
        """The handles of the tables that exist before and after."""
        both = self.before.objects.keys() & self.after.objects.keys()
        return frozenset(key for key in both if self.after.objects[key].kind == "table")

    @cached_property
    def in_order(self) -> tuple[Object, ...]:
        """The added objects, each after those that it needs, except where tables refer to each other.

        Columns and constraints of a new table count as a part of the table.
        """
        objects = self.added

        def node(item: Object) -> str:
            table = _own_table(item)
            return table if table in objects and item.kind in ("column", "constraint") else item.handle

        def needs(*, foreign_keys: bool) -> dict[str, list[str]]:
            graph: defaultdict[str, set[str]] = defaultdict(set)
            last: dict[str, str] = {}
            for item in objects.values():
                needed = {node(objects[p]) for p in item.parents if p in objects} - {node(item)}
                found = graph[node(item)]
                if item.kind == "column" and node(item) == item.handle:  # columns keep their order
                    found.update(filter(None, [last.get(item.parents[0])]))
                    last[item.parents[0]] = item.handle
                if item.kind == "sequence":  # it comes before the column that owns it
                    for owner in needed:
                        graph[owner].add(item.handle)
                elif foreign_keys or item.attributes.get("type") != "foreign key":
                    found |= needed
            return {key: sorted(needed) for key, needed in graph.items()}  # deterministic

        order: list[str] = [node(item) for item in objects.values()]  # if even the second try finds a cycle
        for foreign_keys in (True, False):
            with contextlib.suppress(CycleError):
                order = list(TopologicalSorter(needs(foreign_keys=foreign_keys)).static_order())
                break
        rank = {key: number for number, key in enumerate(order)}
        return tuple(sorted(objects.values(), key=lambda item: rank[node(item)]))

    def by_new_name(self, item: Object) -> Object | None:
        """Return a function as it is after the renames, if its body names what is renamed; else None.

        The server knows a body only as text, and looks up the names in it when the function is made.
        """
        if self.final is None or item.kind not in ("function", "procedure") or not self.renamed:
            return None
        names = "|".join(re.escape(unquoted(rename.after)) for rename in self.renamed)
        if re.search(rf"(?<!\w)({names})(?!\w)", item.attributes["body"] or "") is None:
            return None
        return self.final.objects.get(item.handle)

    def comes_with_table(self, item: Object) -> bool:
        """Tell whether an added object belongs to a table that is also added."""
        return _own_table(item) in self.added

    def refers_to_later(self, constraint: Object) -> bool:
        """Tell whether a foreign key of an added table refers to a table that is created later."""
        if constraint.attributes["type"] != "foreign key":
            return False
        order = [item.handle for item in self.in_order if item.kind == "table"]
        later = order[order.index(constraint.parents[0]) + 1 :]
        return any(parent in later for parent in constraint.parents)

    def goes_along(self, item: Object) -> bool:
        """Tell whether the server drops an object together with its table or one of its columns.

        A dropped column takes its indexes and table constraints with it (PostgreSQL documentation, ALTER
        TABLE, DROP COLUMN).
        """
        columns = f"column:{table_of(item)}."
        gone = [parent for parent in item.parents if parent.startswith(columns) and parent in self.dropped]
        with_column = item.kind in ("constraint", "index", "statistics", "sequence") and bool(gone)
        return with_column or _own_table(item) in self.dropped


def find(comparison: RootCauses, final: Snapshot) -> Changes:
    """Turn the findings of a comparison into changes to the live database.

    The consequences of a finding are changes of their own here: a missing table also needs its columns and
    indexes.

    :param final: the expected schema under its own names.
    """
    expected, actual = comparison.expected.objects, comparison.actual.objects

    def with_root(objects: Mapping[str, Object], change: str) -> dict[str, Object]:
        roots = {(found.kind, found.object) for found in comparison.findings if found.change == change}
        tops = {key: objects[outermost(key, objects)] for key in objects}
        return {key: objects[key] for key, top in tops.items() if (top.kind, top.identity) in roots}

    return Changes(
        before=comparison.actual,
        after=comparison.expected,
        added=with_root({key: item for key, item in expected.items() if key not in actual}, "missing"),
        dropped=with_root({key: item for key, item in actual.items() if key not in expected}, "unexpected"),
        altered=[*_altered(comparison), *_following(comparison)],
        renamed=comparison.renamed,
        final=final,
    )


def _altered(comparison: RootCauses) -> Iterable[Alteration]:
    """Turn findings about objects that differ into alterations."""
    for finding in comparison.findings:
        if finding.change != "different" or finding.kind == "privilege" or "name" in (finding.expected or {}):
            continue
        key = handle(finding.kind, finding.object)
        wanted, there = dict(finding.expected or {}), dict(finding.actual or {})
        wanted.pop("owner", None)  # models cannot express it
        after, before = comparison.expected.objects[key], comparison.actual.objects[key]
        # The comparison has changed types and labels in the shadow; the finding holds the expected ones.
        yield Alteration(
            replace(before, attributes={**before.attributes, **there}),
            replace(after, attributes={**after.attributes, **wanted}),
            tuple(wanted),
        )


def _following(comparison: RootCauses) -> Iterable[Alteration]:
    """Find objects that differ only because another one is missing, such as a function in a default."""
    with_it = {what for finding in comparison.findings for what in finding.with_it}
    for key, after in comparison.expected.objects.items():
        before = comparison.actual.objects.get(key)
        if before is not None and str(after) in with_it and after.kind == before.kind:
            names = [name for name in differing(after, before, None) if name != "column order"]
            if names:
                yield Alteration(before, after, tuple(names))


def _own_table(item: Object) -> str:
    """Return the handle of the table that an object belongs to; empty when there is none."""
    return item.parents[0] if item.kind in OF_TABLES and item.parents else ""
