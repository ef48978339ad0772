"""The tables and facts of Guvnor that the engine needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guvnor.project import Project

if TYPE_CHECKING:
    from sqlalchemy import MetaData


def _load_metadata() -> MetaData:
    from guvnor.models import metadata

    return metadata


GUVNOR = Project(
    _load_metadata,
    extensions={
        "uuid-ossp": "gen_random_uuid() stands in for it",
        "btree_gin": "no index of ours needs it",
    },
    golang_migrate=True,
)
