"""Are the project's own revisions as they should be, however many there are? What needs no server."""

from __future__ import annotations

from guvnor.lint import lint_revisions
from guvnor.revisions import check, files
from guvnor.revisions.script import script_directory
from guvnor.revisions.statements import checksum, render
from tests.support.command import CHECKOUT, FROZEN
from tests.support.forked import ForkedCommand

INI = CHECKOUT / "alembic.ini"


def checksums(ini):
    """The checksums of each revision, up and down, by its number."""
    modules = {revision.revision: revision.module for revision in script_directory(ini).walk_revisions()}
    return {
        number: [checksum(render(function).statements) for function in (module.upgrade, module.downgrade)]
        for number, module in modules.items()
    }


def test_the_revisions_are_one_line_of_finished_files():
    revisions = files.read(files.directory(INI))
    script = script_directory(INI)
    check.validate(revisions, script)
    assert script.get_heads() == [revisions[-1].identifier]


def test_lint_finds_no_problem():
    assert lint_revisions(INI, "base").problems == ()


def test_what_deployed_databases_have_applied_is_never_edited():
    """The frozen revisions are copies of the first ones; both have the checksums of every history."""
    frozen = checksums(FROZEN / "alembic.ini")
    assert {number: checksums(INI).get(number) for number in frozen} == frozen


def test_the_frozen_project_is_configured_like_this_one():
    assert (FROZEN / "alembic.ini").read_text() == INI.read_text()


def test_the_diagram_is_that_of_the_models(guvnor: ForkedCommand):
    shown = guvnor("schema", "diagram", real=True)
    assert (CHECKOUT / "docs" / "schema.md").read_text() == shown.out, (
        "run: guvnor schema diagram > docs/schema.md"
    )
