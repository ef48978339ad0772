"""Least privilege: who owns the schema, who migrates it, who uses it, and who only reads it.

The owner cannot log in. The migrator can; it has no rights of its own, and acts as the owner by ``SET ROLE``
(``storage.role``). The application reads and writes rows and nothing else, also in the tables of future
revisions (PostgreSQL documentation, ALTER DEFAULT PRIVILEGES); it only reads the bookkeeping.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from inspect import cleandoc
from pathlib import Path

from guvnor import postgres
from guvnor.bookkeeping import tables
from guvnor.config import Settings
from guvnor.database import Database
from guvnor.postgres.quoting import constant, quoted

MISSING = "missing"

_VARIABLE = re.compile(r"""(?<!:):(["']?)(\w+)\1""")
_QUOTED_AS: dict[str, Callable[[str], str]] = {"": str, "'": constant, '"': quoted}


@dataclass(frozen=True)
class Names:
    """The names of the four roles."""

    owner: str = "guvnor_owner"
    migrator: str = "guvnor_migrator"
    application: str = "guvnor_app"
    read_only: str = "guvnor_readonly"


@dataclass(frozen=True)
class RoleDifference:
    """A difference between the set-up of a database and the one of :func:`script`.

    :ivar kind: ``missing`` or ``too much``.
    :ivar what: the difference, in words.
    """

    kind: str
    role: str
    what: str

    def __str__(self) -> str:
        """Describe the difference in one line."""
        return f"{self.kind}: role {self.role} {self.what}"


def script(names: Names) -> str:
    """Return the SQL that sets up the roles in the database in which it is run.

    It can be run again, on an empty database and on one in use: objects in ``public`` that belong to other
    roles are given to the owner. It contains no password.
    """
    return _sql("roles.sql", names)


def check(settings: Settings, names: Names) -> tuple[RoleDifference, ...]:
    """Compare the set-up of the configured database with the one of :func:`script`.

    :returns: what is missing first, then what is too much; nothing when all is well.
    """
    with (
        postgres.closing(Database.of(settings).connect()) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(_sql("roles_check.sql", names))
        return tuple(RoleDifference(*row) for row in cursor)


def _sql(file: str, names: Names) -> str:
    """Read a file of this folder and substitute its variables, which are written and quoted as in psql.

    psql itself does not substitute variables within the body of a ``DO``.
    """
    variables = {
        **asdict(names),
        "objects": _read("roles_objects.sql").rstrip(),
        "bookkeeping_is_read_only": cleandoc(tables.READ_ONLY_FOR_OTHERS),
    }
    return _VARIABLE.sub(lambda found: _QUOTED_AS[found[1]](variables[found[2]]), _read(file))


def _read(file: str) -> str:
    return Path(__file__).with_name(file).read_text("utf-8")
