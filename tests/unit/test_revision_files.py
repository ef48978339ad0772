"""Is a revision file that does not fit found without a database?"""

from __future__ import annotations

import pytest

from guvnor.revisions import check, files as revision_files
from guvnor.revisions.files import RevisionFilesError
from guvnor.revisions.script import script_directory


def proved(project):
    """Run the check of the files alone."""
    ini = project.directory / "alembic.ini"
    check.validate(revision_files.read(revision_files.directory(ini)), script_directory(ini))


@pytest.mark.parametrize(
    ("add", "problem"),
    [
        ([{"number": 4}], "Migration file 003 is missing: the next one found is 004_test.py"),
        ([{"name": "a"}, {"name": "b", "number": 3}], "Two migration files have the number 3"),
        ([{"number": 3}, {"number": 4, "after": "002"}], "There are several heads: 003, 004"),
        ([{"after": "001"}], "There are several heads: 002, 003"),
        ([{"upgrade": "pass", "python": True}], "003_test.py has an empty upgrade()"),
        ([{"downgrade": "pass", "python": True}], "003_test.py has an empty downgrade()"),
        ([{"downgrade": "'''Nothing.'''", "python": True}], "003_test.py has an empty downgrade()"),
        (
            [{"upgrade": "SELECT 1 -- TODO: which one?"}],
            "003_test.py is not finished: a TODO is left in line ",
        ),
        (
            [{"downgrade": "# TODO: the index\nop.execute('SELECT 1')", "python": True}],
            "003_test.py is not finished: a TODO is left in line ",
        ),
        ([{"name": "Big"}], "003_Big.py is not named NNN_words.py"),
        pytest.param(
            [{"after": "007"}],
            "007",
            marks=pytest.mark.filterwarnings("ignore:Revision 007 referenced"),
        ),
        ([{"upgrade": "op.execute(", "python": True}], "003_test.py"),
        ([{"after": None}], "There are several heads: 002, 003"),
    ],
)
def test_files_that_do_not_fit(project, add, problem):
    proved(project)
    for more in add:
        statement = "op.execute('SELECT 1')" if more.get("python") else "SELECT 1"
        project.add_revision(**{"upgrade": statement, "downgrade": statement, **more})
    with pytest.raises(RevisionFilesError) as raised:
        proved(project)
    assert problem in raised.value.message
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('revision: str = "003"', 'revision: str = "3"', "003_test.py does not say revision = '003'"),
        ("def downgrade", "def backwards", "003_test.py has no downgrade()"),
        ("from alembic import op", "import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_file_with_something_else_in_it(project, old, new, problem):
    path = project.add_revision("SELECT 1")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RevisionFilesError) as raised:
        proved(project)
    assert problem in raised.value.message
