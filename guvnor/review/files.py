"""The revision files of a branch, written to a folder for Alembic."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory

from guvnor.revisions import check, files as revision_files
from guvnor.revisions.script import script_directory

_INI = "[alembic]\nscript_location = %(here)s/alembic\npath_separator = os\n"


@dataclass(frozen=True)
class Tree:
    """Revision files in a temporary folder, with what Alembic needs beside them."""

    configuration: Path
    script: ScriptDirectory

    def validate(self) -> None:
        """Check that the files are one line of revisions, numbered without gaps and duplicates.

        :raises RevisionFilesError: when they are not.
        """
        found = revision_files.read(revision_files.directory(self.configuration))
        with warnings.catch_warnings():
            # Alembic only warns of two files with one revision; the check of the numbers has refused them.
            warnings.simplefilter("ignore")
            check.validate(found, self.script)


def plant(folder: Path, location: Path, texts: Mapping[str, str]) -> Tree:
    """Write revision files to a folder.

    :param folder: a folder that does not exist yet.
    :param location: the script location whose ``env.py`` is copied.
    :param texts: the texts of the files by name.
    """
    shutil.copytree(location, folder / "alembic", ignore=shutil.ignore_patterns("versions", "__pycache__"))
    versions = folder / "alembic" / "versions"
    versions.mkdir()
    for name, text in texts.items():
        (versions / name).write_text(text, "utf-8")
    configuration = folder / "alembic.ini"
    configuration.write_text(_INI, "utf-8")
    return Tree(configuration, script_directory(configuration))
