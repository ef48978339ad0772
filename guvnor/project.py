"""The tables and facts that the engine needs of the application whose database it migrates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData


@dataclass(frozen=True)
class Project:
    """An application's tables and facts, which ``env.py`` hands to the engine.

    :ivar load_metadata: returns SQLAlchemy's metadata of the tables; called only where it is needed, since
        it takes time to import.
    :ivar extensions: for each extension that the revisions create, what stands in for it where the server
        does not have it.
    :ivar golang_migrate: whether golang-migrate's table and locks are kept in step, since golang-migrate
        works on the same database.
    """

    load_metadata: Callable[[], MetaData]
    extensions: Mapping[str, str] = field(default_factory=dict)
    golang_migrate: bool = False
