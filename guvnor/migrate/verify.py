"""Verification after a migration: whether the schema is the revision's, and which differences are new."""

from __future__ import annotations

import logging
from dataclasses import replace

import psycopg2
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from guvnor import postgres
from guvnor.database import Database
from guvnor.errors import GuvnorError, reason
from guvnor.postgres import Connection
from guvnor.schema import drift, root_causes, shadow
from guvnor.schema.compare import Finding
from guvnor.schema.drift import DriftReport
from guvnor.schema.reading import read_live_schema

log = logging.getLogger(__name__)


class Verification:
    """Compares the schema with the expected one after a run, and blames the run only for what is new."""

    def __init__(self, database: Database, script: ScriptDirectory, control: Connection) -> None:
        """Look at the schema before the run, through a connection in autocommit mode."""
        self._database = database
        self._script = script
        self._before, self._revision = read_live_schema(control)

    def new_drift(self) -> DriftReport | None:
        """Look at the schema after the run; older differences are only logged.

        :returns: the differences that were not there before; None when the expected schema cannot be built
            here.
        """
        try:
            report = drift.check(self._database, self._script)
            if report.clean:
                return report
            known = {_key(finding) for finding in self._differences_before()}
        except (GuvnorError, psycopg2.Error, SQLAlchemyError) as error:
            # The migration itself is done, whether or not its schema can be compared.
            log.warning(
                "the schema could not be verified: guvnor schema check", extra={"reason": reason(error)}
            )
            return None
        new = tuple(finding for finding in report.findings if _key(finding) not in known)
        if old := len(report.findings) - len(new):
            log.warning(
                "the schema differs from its revision, as it did before this run: guvnor schema check",
                extra={"differences": old},
            )
        return replace(report, findings=new)

    def _differences_before(self) -> list[Finding]:
        database = self._database
        with (
            postgres.closing(database.shadow.connect("verify")) as connection,
            shadow.build(connection, shadow.from_revisions(self._script, self._revision)) as built,
        ):
            found = root_causes.trace(built, self._before, grantees=database.grantees, ignore=database.ignore)
            return found.all_findings


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.kind, finding.object, finding.change
