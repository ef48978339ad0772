"""Is the Entity-Relationship diagram of the models what Mermaid can draw?"""

from __future__ import annotations

import re

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, UniqueConstraint

from guvnor import models
from guvnor.reports import diagram
from tests.support.command import CHECKOUT

PAGE = CHECKOUT / "docs" / "schema.md"

# The grammar of Mermaid's erDiagram, as far as it is used here: a type is one word that may hold brackets.
ENTITY = re.compile(r"    [a-z_]+ \{|    \}")
ATTRIBUTE = re.compile(r"        [a-z][a-z0-9_]*(\(\d+\))? [a-z_]+( (PK|FK|UK)(, (FK|UK))?)?")
RELATIONSHIP = re.compile(r"    [a-z_]+ \|[|o]--o\{ [a-z_]+ : [a-z_]+")


def test_the_page_says_by_which_command_it_is_made():
    introduction, _ = PAGE.read_text().split("```mermaid", maxsplit=1)
    assert "guvnor schema diagram > docs/schema.md" in introduction


def test_every_line_is_in_the_grammar():
    first, *lines = diagram.diagram(models.metadata).splitlines()
    assert first == "erDiagram"
    assert [
        line for line in lines if not any(form.fullmatch(line) for form in (ENTITY, ATTRIBUTE, RELATIONSHIP))
    ] == []


def test_every_table_and_column_is_drawn():
    text = diagram.diagram(models.metadata)
    for table in models.metadata.tables.values():
        (body,) = re.findall(rf"^    {table.name} \{{\n(.*?)^    \}}", text, re.DOTALL | re.MULTILINE)
        assert [line.split()[1] for line in body.splitlines()] == [column.name for column in table.columns]


def test_keys_and_relationships():
    metadata = MetaData()
    Table("teams", metadata, Column("id", Integer, primary_key=True), Column("name", String(40)))
    Table(
        "members",
        metadata,
        Column("team_id", ForeignKey("teams.id"), primary_key=True),
        Column("email", String(99), nullable=False),
        Column("deputy_of", ForeignKey("teams.id")),
        UniqueConstraint("email"),
        UniqueConstraint("deputy_of", "team_id"),
    )
    assert (
        diagram.diagram(metadata)
        == """\
erDiagram
    teams {
        integer id PK
        varchar(40) name
    }
    members {
        integer team_id PK, FK
        varchar(99) email UK
        integer deputy_of FK
    }
    teams ||--o{ members : team_id
    teams |o--o{ members : deputy_of
"""
    )
