"""Does a command that writes a file find a project, and not the files of an installed package?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from guvnor.commands import migrate as commands
from guvnor.errors import ExitCode, UsageError
from guvnor.revisions import files
from tests.support.command import CHECKOUT


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_create_does_not_write_into_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    installed = tmp_path / "site-packages" / "guvnor" / "_environment"  # as in a wheel
    shutil.copytree(CHECKOUT / "alembic", installed / "alembic")
    shutil.copy(CHECKOUT / "alembic.ini", installed)
    before = sorted(tmp_path.rglob("*.py"))
    monkeypatch.setattr(files, "_PACKAGED", installed / "alembic.ini")
    monkeypatch.chdir(tmp_path)
    if named:
        monkeypatch.setenv("ALEMBIC_CONFIG", str(installed / "alembic.ini"))
    with pytest.raises(UsageError, match="no project here") as refused:
        commands.create("add teams")
    assert refused.value.exit_code is ExitCode.USAGE
    assert str(installed) in refused.value.message
    assert "cd PROJECT" in (refused.value.next_step or "")
    assert sorted(tmp_path.rglob("*.py")) == before
