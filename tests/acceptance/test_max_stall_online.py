"""Online operations under a small budget and the application's load: none of them fails by the budget."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from tests.support import sample_data
from tests.support.expect import succeeds, versions
from tests.support.load import Load
from tests.support.server import Database, Server
from tests.support.shop import Shop

MAX_STALL = "200ms"
UPDATE_INCIDENT = """
    UPDATE incidents SET title = title || ''
    WHERE id = (SELECT id FROM incidents OFFSET %(id)s %% (SELECT count(*) FROM incidents) LIMIT 1)
"""
BEHIND = 1.0  # seconds
AT_MOST = 0.6  # seconds; a loose bound for a busy machine: who waits for one of them waits longer


@dataclass(frozen=True)
class Online:
    """An operation that takes longer than the budget.

    :ivar body: of the revision's ``upgrade()``.
    :ivar done: SQL that gives true when it is done.
    :ivar prepare: SQL that makes what the revision starts from.
    :ivar behind: a statement of a transaction that is open when it begins.
    """

    body: str
    done: str
    prepare: str = "SELECT 1"
    behind: str = ""


ONLINE = {
    "create_index_concurrently": Online(
        'op.create_index_concurrently("by_n", '
        '"CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON items (slow(n))")',
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_n'::regclass",
    ),
    "create_index_concurrently, behind a transaction": Online(
        'op.create_index_concurrently("by_n", "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON items (n)")',
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_n'::regclass",
        behind="UPDATE items SET label = 'newer' WHERE id = 0",
    ),
    "drop_index_concurrently": Online(
        'op.drop_index_concurrently("by_n")',
        "SELECT to_regclass('by_n') IS NULL",
        "CREATE INDEX by_n ON items (n)",
        behind="UPDATE items SET label = 'newer' WHERE id = 0",
    ),
    "validate_constraint": Online(
        'op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS positive")\n'
        'op.execute("ALTER TABLE items ADD CONSTRAINT positive CHECK (slow(n) > 0) NOT VALID")\n'
        'op.validate_constraint("items", "positive")',
        "SELECT convalidated FROM pg_constraint WHERE conname = 'positive'",
    ),
    "set_not_null": Online(
        'op.set_not_null("items", "n")',
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname = 'n'",
        behind="SELECT count(*) FROM items",
    ),
    "add_enum_value": Online(
        'op.add_enum_value("level", "high")',
        "SELECT count(*) = 2 FROM pg_enum WHERE enumtypid = 'level'::regtype",
        "CREATE TYPE level AS ENUM ('low'); ALTER TABLE items ADD COLUMN level level",
        behind="UPDATE items SET level = 'low' WHERE id = 0",
    ),
    "backfill": Online(
        'op.backfill("items", "label = \'new\'", "label = \'old\'")',
        "SELECT NOT EXISTS (SELECT FROM items WHERE label = 'old')",
        "CREATE TRIGGER slow BEFORE UPDATE OF label ON items FOR EACH ROW EXECUTE FUNCTION slow_row(0.03)",
    ),
}


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
@pytest.mark.parametrize("kind", ONLINE)
def test_it_ends_well(shop: Shop, kind: str, tool: str) -> None:
    operation = ONLINE[kind]
    shop.database.execute(operation.prepare)
    shop.revise(operation.body)
    other = shop.database.connect()
    ends = threading.Timer(BEHIND, other.rollback)
    if operation.behind:
        other.autocommit = False
        other.cursor().execute(operation.behind)
        ends.start()
    with Load(shop.database) as load:
        succeeds(shop.run(tool=tool, max_stall=MAX_STALL))
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"
    if operation.behind:
        ends.join()
    assert shop.database.execute(operation.done) == [(True,)]
    assert versions(shop.database) == (["003"], [(3, False)])


def test_a_batch_over_the_budget_is_halved(shop: Shop) -> None:
    """Half a batch of the first size takes 1 s; a block takes 60 ms."""
    operation = ONLINE["backfill"]
    shop.database.execute(operation.prepare)
    shop.database.execute(
        """
        CREATE TABLE batches (at timestamptz DEFAULT clock_timestamp(), rows bigint);
        CREATE FUNCTION note_batch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO batches (rows) SELECT count(*) FROM changed;
            RETURN NULL;
        END $$;
        CREATE TRIGGER noted AFTER UPDATE ON items REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT WHEN (current_setting('application_name') LIKE 'guvnor %')
            EXECUTE FUNCTION note_batch();
        """
    )
    shop.revise(operation.body)
    with Load(shop.database) as load:
        succeeds(shop.run(max_stall=MAX_STALL))
        assert load.longest < AT_MOST, f"{load.longest:.3f} s"
    batches = [rows for (rows,) in shop.database.execute("SELECT rows FROM batches ORDER BY at")]
    assert sum(batches) == 40  # every row once: what was cancelled was rolled back
    assert max(batches) < 20, batches


@pytest.mark.exhaustive  # 50 runs of each
@pytest.mark.parametrize("kind", ["002", *ONLINE])
def test_none_of_fifty_runs_is_stopped(
    server: Server, shop: Shop, shop_template: Database, template_at_version_1: Database, kind: str
) -> None:
    """Under about 300 transactions a second, with the budget of production."""
    operation = ONLINE.get(kind)
    if operation is not None:
        shop.revise(operation.body)
    for _ in range(50):
        if operation is None:
            database = server.create_database(template_at_version_1)
            sample_data.fill(database)
            load = Load(database, UPDATE_INCIDENT, sessions=8, pause=0.02)
        else:
            database = server.create_database(shop_template)
            database.execute(operation.prepare)
            load = Load(database, sessions=8, pause=0.02)
        with load:
            result = shop.run("--to", "2" if operation is None else "3", max_stall="500ms", dsn=database.dsn)
            succeeds(result)
        load.close()
