"""``guvnor schema``: the schema that the migrations make."""

from __future__ import annotations

import click

from guvnor.cli.base import (
    Group,
)
from guvnor.console import say


@click.group(cls=Group)
def schema() -> None:
    """The schema that the migrations make."""


@schema.command()
def diagram() -> None:
    """Print docs/schema.md: the schema as an entity-relationship diagram."""
    from guvnor.diagram import document

    say(document().rstrip("\n"))
