"""What a revision says in SQL, rendered once: for people, for checksums, and for the shadow."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.runtime.migration import MigrationContext

from guvnor.revisions.statements import Rendering, checksum, render


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[[str], Rendering]:
    """Render the body of an ``upgrade()``."""

    def render_body(body: str) -> Rendering:
        path = tmp_path / "revision.py"
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        path.write_text(f"from alembic import op\nimport sqlalchemy as sa\n\ndef upgrade():\n{lines}\n")
        spec = importlib.util.spec_from_file_location("revision", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return render(module.upgrade)

    return render_body


def test_what_is_run_is_what_was_written(rendered: Callable[[str], Rendering]) -> None:
    """A terminator stands on a line of its own where a comment could swallow it."""
    found = rendered("""op.execute("SELECT 'a\\tb', 50 % 7 -- twice;")""")
    assert found.statements == ("SELECT 'a\tb', 50 % 7 -- twice;\n;",)
    assert found.plain == ("SELECT 'a\tb', 50 % 7 -- twice;",)


def test_an_online_operation_has_both_forms(rendered: Callable[[str], Rendering]) -> None:
    found = rendered(
        'op.execute("CREATE TABLE a (b int)")\n'
        'op.create_index_concurrently("i", "CREATE INDEX CONCURRENTLY i ON a (b)")\n'
        'op.execute("SELECT 1")'
    )
    assert found.statements == (
        "CREATE TABLE a (b int);",
        "COMMIT;",
        "CREATE INDEX CONCURRENTLY i ON a (b);",
        "BEGIN;",
        "SELECT 1;",
    )
    assert found.plain == ("CREATE TABLE a (b int)", "CREATE INDEX i ON a (b)", "SELECT 1")


def test_operations_of_alembic_and_constructs(rendered: Callable[[str], Rendering]) -> None:
    found = rendered(
        'op.add_column("a", sa.Column("b", sa.Text))\nop.execute(sa.text("SELECT :x").bindparams(x="it\'s"))'
    )
    assert found.plain == ("ALTER TABLE a ADD COLUMN b TEXT", "SELECT 'it''s'")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("op.execute(sa.text(\"SELECT ':noon'\"))", id="a parameter without a value"),
        pytest.param("op.get_bind().execute(sa.text('SELECT 1'))", id="asks the database"),
        pytest.param("op.get_context().as_sql or op.execute('SELECT 1')", id="asks Alembic"),
        pytest.param("with op.get_context().autocommit_block():\n    op.execute('VACUUM')", id="commits"),
        pytest.param("raise RuntimeError", id="fails"),
    ],
)
def test_what_only_running_it_tells(rendered: Callable[[str], Rendering], body: str) -> None:
    assert rendered(body).plain is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a\tb',\t50 % 7, '100%'",
        "  SELECT 1 -- at the end\n",
        "SELECT 'at \\:noon', a::text, b[1:2]",
        "SELECT '\\: \\:a:b \\\\:c \\: '",
        "SELECT 1;",
    ],
)
def test_a_checksum_of_an_older_release_can_be_made_again(
    rendered: Callable[[str], Rendering], sql: str
) -> None:
    """An older release rendered with Alembic's own class, which Alembic still has."""
    shown = io.StringIO()
    options = {"as_sql": True, "output_buffer": shown, "literal_binds": True}
    context = MigrationContext.configure(
        dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options
    )
    own = PostgresqlImpl(context.dialect, None, True, True, shown, options)
    own.execute(sql)
    own.execute("SELECT 2")
    found = rendered(f"op.execute({sql!r})\nop.execute('SELECT 2')")
    assert checksum(found.rendered_before) == checksum(shown.getvalue().strip().split("\n\n"))


def test_an_escaped_colon_means_what_it_has_always_meant(rendered: Callable[[str], Rendering]) -> None:
    found = rendered(r"""op.execute(r"SELECT '\:noon \: \d'")""")
    assert found.plain == (r"SELECT ':noon \: \d'",)
    assert found.escaped_colons == (r"SELECT '\:noon \: \d'",)
    assert rendered(r"""op.execute(sa.text(r"SELECT '\:noon'"))""").escaped_colons == ()


def test_a_function_is_rendered_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def upgrade() -> None:
        calls.append(tmp_path)

    assert render(upgrade) is render(upgrade)
    assert len(calls) == 1
