"""Tests of the project, against a real PostgreSQL.

They have a project of their own, ``tests/frozen``: revisions 001 and 002 with their models. Here, and in all
processes started from here, ``guvnor.models`` are those models.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_PATH = [str(_FOLDER / "frozen"), str(_FOLDER.parent)]

sys.path[:0] = _PATH
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATH, *filter(None, [os.environ.get("PYTHONPATH")])])

import guvnor  # noqa: E402

assert guvnor.__path__[0] == str(_FOLDER / "frozen" / "guvnor"), "guvnor was imported before its tests"
