"""What a revision file does when it is applied, as a fingerprint of its Python.

The checksum of its SQL says more, where there is one: a revision that reads from the database shows only a
part of its SQL without one, and some give other SQL each time.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

from guvnor.revisions.statements import checksum

_NOT_APPLIED = "downgrade"


def fingerprint(text: str) -> str | None:
    """Return the fingerprint of a revision file; None of a text that is not Python.

    Comments, docstrings, the layout of Python and SQL, and the way back do not count. It is the same in every
    version of Python.

    :param text: of the file.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    body = [node for node in tree.body if getattr(node, "name", None) != _NOT_APPLIED]
    return hashlib.sha256("\0".join(word for node in body for word in _form(node)).encode()).hexdigest()


def _form(value: object) -> Iterator[str]:
    """Yield the words of a syntax tree: kinds of nodes and their values, without what a later Python adds."""
    if isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant):
        return
    if isinstance(value, ast.JoinedStr):  # Python 3.12 ends some with an empty string
        yield from _form([part for part in value.values if getattr(part, "value", None) != ""])
        return
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, part in ast.iter_fields(value):
            if part is not None and part != []:
                yield name
                yield from _form(part)
        yield ")"
    elif isinstance(value, list):
        for part in value:
            yield from _form(part)
    else:
        yield checksum([value]) if isinstance(value, str) else repr(value)
