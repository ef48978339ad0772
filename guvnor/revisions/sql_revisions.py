"""Reads revisions without Alembic, whose import takes longer than checking a small schema.

This works for revisions that import only ``op`` and the standard library, and call only online operations and
``op.execute`` with text: ``upgrade()`` is called with an ``op`` that records the statements. For any other,
:class:`NeedsAlembicError` is raised, and the caller lets Alembic read the files.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

from guvnor.errors import GuvnorError
from guvnor.online import plain_forms
from guvnor.online.bringing_back import KeptReturn
from guvnor.online.keeping import KeptChange
from guvnor.online.kept_names import calling_revision
from guvnor.postgres import escaped_colons
from guvnor.revisions import files as revision_files


class NeedsAlembicError(Exception):
    """The revision files cannot be read without Alembic."""


@dataclass(frozen=True)
class SqlRevision:
    """A revision with the statements of its ``upgrade()``, online operations in their plain form."""

    identifier: str
    down_revision: str | None
    statements: tuple[str, ...]


@dataclass(frozen=True)
class SqlRevisions:
    """The revisions of a project in their order, all of them SQL."""

    revisions: tuple[SqlRevision, ...]

    @property
    def head(self) -> str:
        """The last revision."""
        return self.revisions[-1].identifier

    def up_to(self, identifier: str) -> tuple[SqlRevision, ...] | None:
        """Return the revisions up to and including one; None when it is not known."""
        known = [revision.identifier for revision in self.revisions]
        return self.revisions[: known.index(identifier) + 1] if identifier in known else None


def read(configuration: Path) -> SqlRevisions:
    """Read the revision files of an ``alembic.ini``.

    :raises NeedsAlembicError: when a revision is not plain SQL, or anything else is unusual or wrong, which
        Alembic then handles or reports.
    """
    try:
        if "version_locations" in configuration.read_text("utf-8"):
            raise NeedsAlembicError
        files = revision_files.listed(revision_files.directory(configuration))
        found = [_read(file.path) for file in files]
    except (GuvnorError, OSError, UnicodeDecodeError) as error:
        raise NeedsAlembicError from error
    return SqlRevisions(_in_order(found))


def _read(path: Path) -> SqlRevision:
    recorder = _Recorder()
    namespace: dict[str, Any] = {
        "__name__": path.stem,
        "__file__": str(path),
        "__builtins__": {**vars(builtins), "__import__": recorder.import_module},
    }
    try:
        code = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
        assert code is not None
        exec(code, namespace)  # noqa: S102 - as Alembic does
        namespace["upgrade"]()
        identifier, down_revision = namespace["revision"], namespace["down_revision"]
    except (Exception, SystemExit) as error:  # a revision may do anything
        raise NeedsAlembicError from error
    more = namespace.get("branch_labels") or namespace.get("depends_on")
    if recorder.failed or more or not isinstance(identifier, str):
        raise NeedsAlembicError
    return SqlRevision(identifier, down_revision, tuple(recorder.statements))


def _in_order(found: Sequence[SqlRevision]) -> tuple[SqlRevision, ...]:
    """Sort revisions so that each comes after its ``down_revision``.

    :raises NeedsAlembicError: when they are not linear.
    """
    following = {revision.down_revision: revision for revision in found}
    ordered: list[SqlRevision] = []
    while (after := following.get(ordered[-1].identifier if ordered else None)) and after not in ordered:
        ordered.append(after)
    if not len({revision.identifier for revision in ordered}) == len(ordered) == len(found):
        raise NeedsAlembicError
    return tuple(ordered)


class _Recorder:
    """Stands in for ``alembic.op`` and records the statements."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.failed = False  # kept, since a revision may catch the error

    def execute(self, sqltext: str) -> None:
        if not isinstance(sqltext, str) or escaped_colons.is_in(sqltext):
            self._fail()
        self.statements.append(sqltext)

    def create_index_concurrently(self, name: str, sql: str) -> None:
        if not plain_forms.is_concurrent(sql):
            self._fail()
        self.statements.append(plain_forms.create_index(name, sql))

    def drop_index_concurrently(self, name: str) -> None:
        self.statements.append(plain_forms.drop_index(name))

    def validate_constraint(self, table: str, name: str) -> None:
        self.statements.append(plain_forms.validate_constraint(table, name))

    def add_foreign_key(self, table: str, name: str, definition: str) -> None:
        self.statements.append(plain_forms.add_foreign_key(table, name, definition))

    def add_unique_constraint(self, table: str, name: str, columns: Sequence[str]) -> None:
        self._add_key(table, name, "UNIQUE", columns)

    def add_primary_key(self, table: str, name: str, columns: Sequence[str]) -> None:
        self._add_key(table, name, "PRIMARY KEY", columns)

    def _add_key(self, table: str, name: str, kind: str, columns: Sequence[str]) -> None:
        if isinstance(columns, str):
            self._fail()
        self.statements.append(plain_forms.add_key(table, name, kind, columns))

    def add_enum_value(
        self, name: str, value: str, *, before: str | None = None, after: str | None = None
    ) -> None:
        self.statements.append(plain_forms.add_enum_value(name, value, before, after))

    def backfill(self, table: str, assignments: str, where: str) -> None:
        self.statements.append(plain_forms.backfill(table, assignments, where))

    def change_rows(
        self,
        table: str,
        *,
        set: Mapping[str, str],  # noqa: A002 - as in a revision
        where: str,
        keep: bool,
    ) -> None:
        if keep is not True or isinstance(set, str) or not set:
            self._fail()
        self._keep(KeptChange(table, dict(set), where, calling_revision()))

    def delete_rows(self, table: str, *, where: str, keep: bool) -> None:
        if keep is not True:
            self._fail()
        self._keep(KeptChange(table, None, where, calling_revision()))

    def _keep(self, rows: KeptChange) -> None:
        self.statements += [rows.make(), rows.whole()]

    def bring_back(self, table: str) -> None:
        rows = KeptReturn(table, calling_revision())
        self.statements += [rows.whole(), rows.drop()]

    def forget_kept(self, table: str, *, revision: str) -> None:
        self.statements.append(plain_forms.forget_kept(table, revision))

    def next_transaction(self) -> None:
        self.statements.append(plain_forms.next_transaction())

    def __getattr__(self, name: str) -> NoReturn:
        self._fail()

    def import_module(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - as Python calls it
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Import a module for a revision, as ``__import__`` does."""
        if level == 0 and name == "alembic" and tuple(fromlist or ()) == ("op",):
            return types.SimpleNamespace(op=self)
        if level or name.partition(".")[0] not in sys.stdlib_module_names:
            self._fail()
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    def _fail(self) -> NoReturn:
        self.failed = True
        raise NeedsAlembicError
