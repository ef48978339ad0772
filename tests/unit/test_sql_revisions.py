"""Are revisions that consist of SQL read without Alembic as with it, and all others left to Alembic?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from guvnor.revisions import sql_revisions
from guvnor.revisions.files import configuration_file
from guvnor.revisions.statements import render

FIRST = """
from alembic import op
revision = "001"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE a (b integer)")
"""


def project(directory: Path, *files: str) -> Path:
    versions = directory / "alembic" / "versions"
    versions.mkdir(parents=True)
    for number, text in enumerate(files, start=1):
        (versions / f"{number:03d}_part.py").write_text(text)
    configuration = directory / "alembic.ini"
    configuration.write_text("[alembic]\nscript_location = %(here)s/alembic\n")
    return configuration


def revision(body: str, imports: str = "from alembic import op", more: str = "") -> str:
    return f'{imports}\nrevision = "002"\ndown_revision = "001"\n{more}\ndef upgrade():\n    {body}\n'


def test_the_statements_are_those_of_alembic() -> None:
    script = ScriptDirectory.from_config(Config(configuration_file()))
    for read in sql_revisions.read(configuration_file()).revisions:
        rendered = render(script.get_revision(read.identifier).module.upgrade).statements
        by_alembic = [s.rstrip(";").strip().replace("CONCURRENTLY ", "") for s in rendered]
        assert [s.strip() for s in read.statements] == [s for s in by_alembic if s not in ("COMMIT", "BEGIN")]


def test_online_operations_take_their_plain_form(tmp_path: Path) -> None:
    body = """
    op.create_index_concurrently("i", "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (b)")
    op.drop_index_concurrently("i")
    op.validate_constraint("a", "c")
    op.add_enum_value("e", "new", after="old")
    op.backfill("a", "b = 1", "b IS NULL")
    """
    found = sql_revisions.read(project(tmp_path, FIRST, revision(body.strip())))
    assert found.head == "002"
    assert found.revisions[1].statements == (
        "CREATE INDEX IF NOT EXISTS i ON a (b)",
        'DROP INDEX IF EXISTS "i"',
        'ALTER TABLE "a" VALIDATE CONSTRAINT "c"',
        "ALTER TYPE \"e\" ADD VALUE IF NOT EXISTS 'new' AFTER 'old'",
        'UPDATE "a" SET b = 1 WHERE b IS NULL',
    )
    up_to_first = found.up_to("001")
    assert up_to_first is not None
    assert [r.identifier for r in up_to_first] == ["001"]
    assert found.up_to("003") is None


@pytest.mark.parametrize(
    "text",
    [
        revision('op.create_table("a")'),
        revision('op.execute("SELECT 1", execution_options={})'),
        revision(r"op.execute('SELECT \\:name')"),
        revision('op.set_not_null("a", "b")'),
        revision('op.create_index_concurrently("i", "CREATE INDEX i ON a (b)")'),
        revision("op.get_bind()"),
        revision("try:\n        op.get_bind()\n    except Exception:\n        pass"),
        revision("raise RuntimeError"),
        revision("exit(1)"),
        revision("import sqlalchemy"),
        revision("pass", imports="from alembic import context, op"),
        revision("pass", imports="import alembic"),
        revision("pass", imports="from . import helpers"),
        revision("pass", more='depends_on = "001"'),
        revision("pass").replace('down_revision = "001"', 'down_revision = "000"'),
        revision("pass").replace('down_revision = "001"', 'down_revision = ("001",)'),
        revision("pass").replace('revision = "002"', 'revision = "001"', 1),
        revision("pass").replace("upgrade", "other"),
        "not Python",
    ],
)
def test_anything_else_is_left_to_alembic(tmp_path: Path, text: str) -> None:
    with pytest.raises(sql_revisions.NeedsAlembicError):
        sql_revisions.read(project(tmp_path, FIRST, text))


def test_other_locations_are_left_to_alembic(tmp_path: Path) -> None:
    configuration = project(tmp_path, FIRST)
    assert sql_revisions.read(configuration).head == "001"
    configuration.write_text(configuration.read_text() + "version_locations = %(here)s/other\n")
    with pytest.raises(sql_revisions.NeedsAlembicError):
        sql_revisions.read(configuration)


def test_the_check_of_sql_revisions_imports_neither_alembic_nor_sqlalchemy() -> None:
    code = (
        "import sys; from guvnor.commands import schema; "
        "from guvnor.revisions import files as revisions, sql_revisions; "
        "sql_revisions.read(revisions.configuration_file()); "
        "sys.exit(bool({'alembic', 'sqlalchemy', 'rich'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
