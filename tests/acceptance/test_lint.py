"""Is what lint finds told as the command is asked to tell it, and is what it cannot read named?"""

from __future__ import annotations

import json

import pytest

from guvnor.revisions import branch
from tests.support.expect import ends, succeeds
from tests.support.lint import GOOD, commit, git, in_branch, written


@pytest.mark.parametrize("data", [b"# \xe4", b"\xff\xfea\x00"], ids=["Latin-1", "UTF-16"])
def test_a_file_that_is_not_in_utf_8(repository, guvnor, data):
    (repository.versions / "003_test.py").write_bytes(data)
    for since in ((), ("--since", "002")):
        ends(guvnor("schema", "lint", *since, cwd=repository.directory), 3, "003_test.py is not in UTF-8")
    commit(repository)
    git(repository.directory, "branch", "--force", "main")
    (repository.versions / "003_test.py").unlink()
    assert "deleted" in in_branch(repository).problems[0].message


def test_what_is_no_file(project, guvnor):
    path = project.versions / "003_test.py"
    path.mkdir()
    ends(guvnor("schema", "lint", "--since", "002", cwd=project.directory), 3, "003_test.py cannot be read")
    path.rmdir()
    path.symlink_to("gone.py")
    ends(guvnor("schema", "lint", "--since", "002", cwd=project.directory), 3, "003_test.py cannot be read")


def test_outside_of_git(project, guvnor, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.directory.parent))
    with pytest.raises(branch.BranchError):
        in_branch(project)
    ends(
        guvnor("schema", "lint", cwd=project.directory),
        2,
        "is not in a Git checkout",
        "guvnor schema lint --since REV",
    )


def test_a_checkout_of_another_user_is_told(repository, guvnor):
    """As where a container runs as another user than the one who cloned."""
    shown = guvnor("schema", "lint", cwd=repository.directory, env={"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    ends(shown, 2, "Git says: fatal: detected dubious ownership in repository at ", "git -C ")


def test_the_command(project, guvnor):
    here = {"cwd": project.directory}
    written(project, GOOD)
    succeeds(guvnor("schema", "lint", "--since", "002", **here), "✅ Lint: no problem in 1 new revision.")
    written(project, 'op.execute("DROP TABLE IF EXISTS audit_logs")')
    line = "alembic/versions/003_test.py:"
    told = guvnor("schema", "lint", "--since", "002", **here)
    assert told.code == 3
    assert told.out.startswith(f"❌ Lint: 1 problem in 1 new revision.\n\n{line}16 (up) ban-drop-table\n")
    told = ends(guvnor("schema", "lint", "--since", "002", "--json", **here), 3)
    assert json.loads(told.out)["problems"][0]["rule"] == "ban-drop-table"
    told = guvnor("schema", "lint", "--since", "002", "--markdown", **here)
    assert told.code == 3
    assert told.out.startswith("### ❌ Lint: 1 problem in 1 new revision.\n")
    told = ends(guvnor("schema", "lint", "--since", "002", "--github", **here), 3)
    assert told.out.startswith(f"::error file={line[:-1]},line=")
    succeeds(guvnor("schema", "rules"), "# Lint")


def test_what_a_revision_prints_is_not_in_the_report(project, guvnor):
    path = written(project, 'print("run")\nop.execute("SELECT 1")')
    path.write_text(path.read_text() + '\n\nprint("loaded")\n')
    told = guvnor("schema", "lint", "--since", "002", "--json", cwd=project.directory)
    assert json.loads(told.out)["clean"]
    assert "loaded" in told.err


def test_the_newest_sql_is_read_by_a_server(project, guvnor, server):
    if server.major < 18:
        pytest.skip("the SQL is that of PostgreSQL 18")
    written(
        project,
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS a int GENERATED ALWAYS AS (1) VIRTUAL")',
    )
    lint = ("schema", "lint", "--since", "002")
    told = guvnor(*lint, cwd=project.directory)
    assert told.code == 3
    assert "lint's parser, which is PostgreSQL 17's" in told.out
    assert "guvnor schema lint --shadow-dsn DSN" in told.out
    succeeds(guvnor(*lint, "--shadow-dsn", server.dsn, cwd=project.directory), "no problem in 1 new revision")
