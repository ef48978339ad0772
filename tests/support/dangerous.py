"""Revisions that make the application wait, each with what is to be written instead."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.shop import NAP, WHOLE

FULL = "AccessExclusiveLock|ACCESS EXCLUSIVE"
NO_WRITES = "ShareLock|SHARE"
NO_OTHER_KEY = "ShareRowExclusiveLock|SHARE ROW EXCLUSIVE"
ROW = "row"


@dataclass(frozen=True)
class Dangerous:
    """A revision for the tables of :mod:`tests.support.shop`.

    :ivar body: of its ``upgrade()``.
    :ivar statement: what of its SQL the error shows.
    :ivar lock: a pattern for the lock that the application waits for.
    :ivar instead: what the error says to write instead; empty where there is no other form.
    :ivar corrected: the body that does the same, or as much of it as can be done under load.
    :ivar prepare: SQL that makes what the revision starts from.
    :ivar alone: whether it runs outside of a transaction, so that what it left has to be repaired.
    """

    body: str
    statement: str
    lock: str
    instead: str
    corrected: str
    prepare: str = "SELECT 1"
    alone: bool = False


PYTHON = """
import time
{first}
if not op.get_context().as_sql:
    time.sleep({seconds})
op.execute("SELECT 1")
"""

SLOW_INDEX = "CREATE INDEX slow_index ON items (slow(n))"
SLOW_UPDATE = (
    f"CREATE TRIGGER slow BEFORE UPDATE OF label ON items FOR EACH ROW EXECUTE FUNCTION slow_row({2 * NAP})"
)
SLOW_TRUNCATE = (
    "CREATE TRIGGER slow BEFORE TRUNCATE ON items FOR EACH STATEMENT EXECUTE FUNCTION slow_statement()"
)
ADD_COLUMN = 'op.execute("ALTER TABLE items ADD COLUMN a integer")'
LONG_READ = 'op.execute("SELECT count(slow(id)) FROM customers")'
UPDATE_SOME = "op.execute(\"UPDATE items SET label = 'new' WHERE id <= 20\")"

DANGEROUS = {
    "create index": Dangerous(
        'op.execute("CREATE INDEX by_n ON items (slow(n))")',
        "CREATE INDEX by_n",
        NO_WRITES,
        "op.create_index_concurrently",
        'op.create_index_concurrently("by_n", '
        '"CREATE INDEX CONCURRENTLY IF NOT EXISTS by_n ON items (slow(n))")',
    ),
    "change of a type": Dangerous(
        'op.execute("ALTER TABLE items ALTER COLUMN n TYPE bigint USING slow(n)")',
        "ALTER COLUMN n TYPE bigint",
        FULL,
        "op.backfill",
        'op.execute("ALTER TABLE items ADD COLUMN IF NOT EXISTS n_big bigint")\n'
        'op.backfill("items", "n_big = slow(n)", "n_big IS NULL")',
    ),
    "check": Dangerous(
        'op.execute("ALTER TABLE items ADD CONSTRAINT positive CHECK (slow(n) > 0)")',
        "ADD CONSTRAINT positive",
        FULL,
        "op.validate_constraint",
        'op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS positive")\n'
        'op.execute("ALTER TABLE items ADD CONSTRAINT positive CHECK (slow(n) > 0) NOT VALID")\n'
        'op.validate_constraint("items", "positive")',
    ),
    "update of half the table": Dangerous(
        "op.execute(\"UPDATE items SET label = 'new' WHERE id % 2 = 0\")",
        "UPDATE items SET label",
        ROW,
        "op.backfill",
        'op.backfill("items", "label = \'new\'", "id % 2 = 0 AND label = \'old\'")',
        SLOW_UPDATE,
    ),
    "not null": Dangerous(
        f'op.execute("ALTER TABLE items ALTER COLUMN n SET NOT NULL; SELECT nap({WHOLE})")',
        "SET NOT NULL",
        FULL,
        "op.set_not_null",
        'op.set_not_null("items", "n")',
    ),
    "foreign key": Dangerous(
        'op.execute("ALTER TABLE items ADD CONSTRAINT of_customer FOREIGN KEY (customer_id) '
        f'REFERENCES customers; SELECT nap({WHOLE})")',
        "ADD CONSTRAINT of_customer",
        NO_OTHER_KEY,
        "op.validate_constraint",
        'op.execute("ALTER TABLE items DROP CONSTRAINT IF EXISTS of_customer")\n'
        'op.execute("ALTER TABLE items ADD CONSTRAINT of_customer FOREIGN KEY (customer_id) '
        'REFERENCES customers NOT VALID")\n'
        'op.validate_constraint("items", "of_customer")',
    ),
    "volatile default": Dangerous(
        'op.execute("ALTER TABLE items ADD COLUMN token double precision DEFAULT slow_random()")',
        "ADD COLUMN token",
        FULL,
        "op.backfill",
        'op.execute("ALTER TABLE items ADD COLUMN IF NOT EXISTS token double precision")\n'
        'op.execute("ALTER TABLE items ALTER COLUMN token SET DEFAULT slow_random()")\n'
        'op.backfill("items", "token = slow_random()", "token IS NULL")',
    ),
    "rewrite": Dangerous(
        'op.execute("CLUSTER items USING items_pkey")',
        "CLUSTER items",
        FULL,
        "",
        'op.execute("ALTER TABLE items CLUSTER ON items_pkey")',
        SLOW_INDEX,
    ),
    "vacuum full": Dangerous(
        'with op.get_context().autocommit_block():\n    op.execute("VACUUM FULL items")',
        "VACUUM FULL items",
        FULL,
        "",
        'with op.get_context().autocommit_block():\n    op.execute("VACUUM items")',
        SLOW_INDEX,
        alone=True,
    ),
    "truncate": Dangerous(
        'op.execute("TRUNCATE items CASCADE")',
        "TRUNCATE items",
        FULL,
        "",
        'op.execute("ALTER TABLE items DISABLE TRIGGER slow")\nop.execute("TRUNCATE items CASCADE")',
        SLOW_TRUNCATE,
    ),
    "row locks of a long update": Dangerous(
        f"{UPDATE_SOME}\n{LONG_READ}",
        "SELECT count(slow(id))",
        ROW,
        "",
        f"{LONG_READ}\n{UPDATE_SOME}",
    ),
    "slow function": Dangerous(
        f"{ADD_COLUMN}\n{LONG_READ}",
        "SELECT count(slow(id))",
        FULL,
        "",
        f"{LONG_READ}\n{ADD_COLUMN}",
    ),
    "slow python": Dangerous(
        PYTHON.format(first=ADD_COLUMN, seconds=WHOLE),
        "ADD COLUMN a",
        FULL,
        "",
        f"{PYTHON.format(first='', seconds=WHOLE)}\n{ADD_COLUMN}",
    ),
}
