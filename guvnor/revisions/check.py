"""Whether the revision files can be run: one line of revisions, both directions, no TODO left."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING

from guvnor.revisions import allowances, files, loading
from guvnor.revisions.files import Revision, RevisionFilesError

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

_TODO = re.compile(r"\bTODO\b")
# Quotes are ignored, since a comment within a DO block counts, too.
TODO_COMMENT = re.compile(r"(?:#|--)[^\n]*|/\*.*?\*/", re.DOTALL)


def load_files(script: ScriptDirectory) -> dict[str, Script]:
    """Let Alembic read the revision files, and return what it finds in each.

    :raises RevisionFilesError: when a file cannot be run, or Alembic cannot put them in order.
    """
    from alembic.util import CommandError

    try:
        return {revision.revision: revision for revision in script.walk_revisions()}
    except CommandError as error:
        raise RevisionFilesError(f"The migration files do not fit together: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a revision can raise anything
        raise loading.explained(error) or loading.unreadable(error, None) from None


def validate(found: tuple[Revision, ...], script: ScriptDirectory) -> None:
    """Check that the files and Alembic's graph agree and are linear, and that both directions do something.

    :raises RevisionFilesError: when they do not.
    """
    graph = load_files(script)
    heads = script.get_heads()
    if len(heads) > 1:
        raise RevisionFilesError(
            f"There are several heads: {', '.join(sorted(heads))}.",
            next_step=files.renumbered(
                found[0].path.parent, [each.path.name for each in found if each.identifier in heads]
            ),
        )
    previous: str | None = None
    for revision in found:
        known = graph.get(revision.identifier)
        if known is None:
            raise RevisionFilesError(
                f"{revision.path.name} does not say revision = {revision.identifier!r}: "
                "the number in a file's name is the revision."
            )
        if isinstance(known.down_revision, tuple | list):
            raise RevisionFilesError(
                f"{revision.path.name} follows several revisions ({', '.join(known.down_revision)}), as "
                "`alembic merge` writes it: the revisions must be one line.",
                next_step=files.renumbered(revision.path.parent, [revision.path.name]),
            )
        if known.down_revision != previous:
            raise RevisionFilesError(
                f"{revision.path.name} says down_revision = {known.down_revision!r}; "
                f"the one before it is {previous!r}.",
                next_step=files.renumbered(revision.path.parent, [revision.path.name]),
            )
        for direction in ("upgrade", "downgrade"):
            function = getattr(known.module, direction, None)
            # A function that calls nothing has no names.
            if not isinstance(function, types.FunctionType) or not function.__code__.co_names:
                raise RevisionFilesError(
                    f"{revision.path.name} has {'an empty' if function else 'no'} {direction}(): "
                    "every revision can be applied and rolled back.",
                    next_step=f"$EDITOR {revision.path}",
                )
        try:
            allowances.max_idle(known.module)
            allowances.max_stall(known.module)
        except allowances.AllowanceError as error:
            raise RevisionFilesError(
                f"{revision.path.name} {error}", next_step=f"$EDITOR {revision.path}"
            ) from None
        if left := todo_lines(files.text(revision.path)):
            message = f"{revision.path.name} is not finished: a TODO is left in line {left[0]}."
            raise RevisionFilesError(message, next_step=f"$EDITOR {revision.path}")
        previous = revision.identifier
    if extra := graph.keys() - {revision.identifier for revision in found}:
        names = ", ".join(sorted(extra))
        raise RevisionFilesError(f"Alembic finds revisions that no file is named after: {names}.")


def check_transactions(script: ScriptDirectory, steps: Iterable[tuple[str, str]]) -> None:
    """Check that the SQL of revisions does not end the transaction in which the tool runs it.

    What only the database can show is checked when it runs.

    :param steps: revisions, each with the direction in which it is to run: ``up`` or ``down``.
    :raises RevisionFilesError: when the SQL of one of them does.
    """
    from guvnor.revisions import transaction_control
    from guvnor.revisions.statements import render

    for identifier, direction in steps:
        module = script.get_revision(identifier).module
        function = module.upgrade if direction == "up" else module.downgrade
        for text in render(function).transactional:
            if words := transaction_control.ending(text):
                raise RevisionFilesError(
                    transaction_control.refusal(identifier, direction, words),
                    next_step=f"$EDITOR {module.__file__}   # delete that statement",
                )


def todo_lines(text: str) -> tuple[int, ...]:
    """Return the lines of a revision file on which a Python or SQL comment has a TODO.

    The template and autogenerate leave one where a person has to decide.
    """
    found = (
        comment.start() + todo.start()
        for comment in TODO_COMMENT.finditer(text)
        for todo in _TODO.finditer(comment[0])
    )
    return tuple(dict.fromkeys(text.count("\n", 0, position) + 1 for position in found))
