"""The rules of squawk: those that are on, in the words of this project, and those that are not, and why."""

from __future__ import annotations

from dataclasses import dataclass

from guvnor.lint.problem import Direction


@dataclass(frozen=True)
class SquawkRule:
    """A rule of squawk that is on.

    :ivar why: what the statement does to the application.
    :ivar instead: what to do.
    :ivar bad: an example, the body of ``upgrade()``; empty where the rule speaks for itself.
    :ivar good: the same thing done well.
    """

    name: str
    why: str
    instead: str
    bad: str = ""
    good: str = ""


@dataclass(frozen=True)
class Exclusion:
    """A rule of squawk that is off, in one direction or in both."""

    name: str
    reason: str
    directions: tuple[Direction, ...] = ("up", "down")


RULES = (
    SquawkRule(
        "require-concurrent-index-creation",
        "CREATE INDEX stops all writes to the table until the index is built.",
        "op.create_index_concurrently",
        'op.execute("CREATE INDEX IF NOT EXISTS idx_signals_title ON signals (title)")',
        "op.create_index_concurrently(\n"
        '    "idx_signals_title",\n'
        '    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_title ON signals (title)",\n)',
    ),
    SquawkRule(
        "require-concurrent-index-deletion",
        "DROP INDEX waits for every query on the table, and everyone behind it waits too.",
        "op.drop_index_concurrently",
        'op.execute("DROP INDEX IF EXISTS idx_signals_title")',
        'op.drop_index_concurrently("idx_signals_title")',
    ),
    SquawkRule(
        "constraint-missing-not-valid",
        "A new check or foreign key reads the whole table under a lock that stops its writers.",
        "Add it NOT VALID in a DO block, then op.validate_constraint.",
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        ALTER TABLE signals ADD CONSTRAINT signal_title_short CHECK (length(title) < 300);\n"
        '    EXCEPTION\n        WHEN duplicate_object THEN NULL;\n    END\n    $$\n""")',
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        ALTER TABLE signals ADD CONSTRAINT signal_title_short CHECK (length(title) < 300) NOT VALID;\n"
        '    EXCEPTION\n        WHEN duplicate_object THEN NULL;\n    END\n    $$\n""")\n'
        'op.validate_constraint("signals", "signal_title_short")',
    ),
    SquawkRule(
        "adding-not-nullable-field",
        "SET NOT NULL reads the whole table under a lock that stops its readers and writers.",
        "op.set_not_null",
        'op.execute("ALTER TABLE signals ALTER COLUMN payload SET NOT NULL")',
        'op.set_not_null("signals", "payload")',
    ),
    SquawkRule(
        "adding-field-with-default",
        "A default that is computed for each row rewrites the table under a lock that stops its readers and "
        "writers. A constant does not.",
        "Add the column without a default, then SET DEFAULT, then op.backfill.",
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid DEFAULT uuid_generate_v4()")',
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid")\n'
        'op.execute("ALTER TABLE signals ALTER COLUMN token SET DEFAULT uuid_generate_v4()")\n'
        'op.backfill("signals", "token = uuid_generate_v4()", "token IS NULL")',
    ),
    SquawkRule(
        "adding-required-field",
        "A new NOT NULL column without a default fails as soon as the table has a row, and so does every "
        "INSERT of the application version that is running.",
        "Give it a default, or let it be NULL until every version writes it.",
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL")',
        "op.execute(\n"
        "    \"ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL DEFAULT 'eu'\"\n)",
    ),
    SquawkRule(
        "adding-serial-primary-key-field",
        "A new primary key rewrites the table, or reads it whole, under a lock that stops readers and writers.",
        "A unique index built concurrently, then ADD CONSTRAINT ... PRIMARY KEY USING INDEX.",
    ),
    SquawkRule(
        "changing-column-type",
        "Another type rewrites the table under a lock that stops its readers and writers, and the application "
        "version that is running still expects the old one.",
        "A new column, a backfill, and a later revision that drops the old column.",
        'op.execute("ALTER TABLE signals ALTER COLUMN title TYPE text")',
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS full_title text")\n'
        'op.backfill("signals", "full_title = title", "full_title IS NULL")',
    ),
    SquawkRule(
        "disallowed-unique-constraint",
        "A new unique constraint builds its index under a lock that stops readers and writers.",
        "A unique index built concurrently, then ADD CONSTRAINT ... UNIQUE USING INDEX.",
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        ALTER TABLE schedules ADD CONSTRAINT schedules_name_key UNIQUE (name);\n"
        '    EXCEPTION\n        WHEN duplicate_table THEN NULL;\n    END\n    $$\n""")',
        "op.create_index_concurrently(\n"
        '    "schedules_name_key",\n'
        '    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS schedules_name_key ON schedules (name)",\n)\n'
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        IF to_regclass('schedules_name_key') IS NOT NULL AND NOT EXISTS (\n"
        "            SELECT FROM pg_constraint WHERE conindid = 'schedules_name_key'::regclass\n"
        "        ) THEN\n"
        "            ALTER TABLE schedules\n"
        "            ADD CONSTRAINT schedules_name_key UNIQUE USING INDEX schedules_name_key;\n"
        '        END IF;\n    END\n    $$\n""")',
    ),
    SquawkRule(
        "renaming-column",
        "The application version that is running knows the old name and fails at once.",
        "A new column, a backfill, and a later revision that drops the old column.",
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        ALTER TABLE schedules RENAME COLUMN active TO enabled;\n"
        '    EXCEPTION\n        WHEN undefined_column THEN NULL;\n    END\n    $$\n""")',
        "op.execute(\n"
        '    "ALTER TABLE schedules ADD COLUMN IF NOT EXISTS enabled boolean NOT NULL DEFAULT true"\n)\n'
        'op.backfill("schedules", "enabled = active", "enabled <> active")',
    ),
    SquawkRule(
        "renaming-table",
        "The application version that is running knows the old name and fails at once.",
        "A new table, filled by the application and a backfill, or leave the name.",
        'op.execute("""\n    DO $$\n    BEGIN\n'
        "        ALTER TABLE audit_logs RENAME TO audit_entries;\n"
        '    EXCEPTION\n        WHEN undefined_table THEN NULL;\n    END\n    $$\n""")',
        'op.execute("CREATE TABLE IF NOT EXISTS audit_entries (LIKE audit_logs INCLUDING ALL)")',
    ),
    SquawkRule(
        "ban-drop-column",
        "The rows lose what the column held, and an application version that still reads it fails.",
        "Wait until no version uses the column; then ignore the rule and say so, which marks the loss for the "
        "reviewer.",
        'op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")',
        "# lint: ignore ban-drop-column: no version since 4.2 reads or writes it\n"
        'op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")',
    ),
    SquawkRule(
        "ban-drop-table",
        "The rows are lost, and an application version that still uses the table fails.",
        "Wait until no version uses the table; then ignore the rule and say so, which marks the loss for the "
        "reviewer.",
        'op.execute("DROP TABLE IF EXISTS audit_logs")',
        "# lint: ignore ban-drop-table: written by no version since 4.2, kept in the archive\n"
        'op.execute("DROP TABLE IF EXISTS audit_logs")',
    ),
    SquawkRule(
        "ban-drop-not-null",
        "An application version that counts on a value meets NULL.",
        "Wait until every version that runs can read NULL; then ignore the rule and say so.",
    ),
    SquawkRule("ban-drop-database", "It holds everything.", "Nothing: no revision needs it."),
    SquawkRule(
        "ban-truncate-cascade", "It empties tables that the statement does not name.", "Name each table."
    ),
    SquawkRule(
        "transaction-nesting",
        "The transaction of a revision belongs to the tool; a COMMIT ends it too early.",
        "Take BEGIN and COMMIT out.",
    ),
    SquawkRule(
        "ban-uncommitted-transaction",
        "The transaction of a revision belongs to the tool.",
        "Take BEGIN and COMMIT out.",
    ),
    SquawkRule(
        "require-concurrent-reindex",
        "REINDEX stops the table's writers until the index is built.",
        "Build a second index with op.create_index_concurrently, and drop the first.",
    ),
    SquawkRule(
        "require-concurrent-partition-detach",
        "DETACH PARTITION stops readers and writers.",
        "Detach it by hand, concurrently.",
    ),
    SquawkRule(
        "prefer-repack", "VACUUM FULL and CLUSTER stop readers and writers until the table is written anew.",
        "Run pg_repack by hand.",
    ),
    SquawkRule(
        "identifier-too-long", "PostgreSQL cuts a name off after 63 bytes.", "A shorter name."
    ),
    SquawkRule("ban-duplicate-column-assignments", "PostgreSQL refuses it.", "Assign the column once."),
    SquawkRule("ban-char-field", "char(n) pads with blanks.", "varchar or text."),
    SquawkRule("prefer-timestamp-tz", "Without a time zone, nobody knows which moment it was.", "timestamptz"),
    SquawkRule("prefer-identity", "The sequence of serial has an owner and privileges of its own.",
               "uuid, as the other tables, or GENERATED BY DEFAULT AS IDENTITY."),
    SquawkRule("ban-create-domain-with-constraint", "The constraint cannot be changed without reading every "
               "table that uses the domain.", "A check of the column."),
    SquawkRule("ban-alter-domain-with-add-constraint", "It reads every table that uses the domain under a lock.",
               "A check of the column."),
)

EXCLUDED = (
    Exclusion("prefer-text-field", "The deployed tables have varchar with a length, and new ones go along."),
    Exclusion("prefer-bigint-over-int", "The deployed tables count minutes and positions in integer."),
    Exclusion("prefer-bigint-over-smallint", "As for integer: the numbers are small and no keys."),
    Exclusion("prefer-robust-stmts", "`idempotent-statements` asks for more kinds of statements, and lets pass "
              "what can be repeated as it is, such as SET DEFAULT."),
    Exclusion("require-lock-timeout", "The tool sets the timeouts, and `timeouts-not-overridden` guards them."),
    Exclusion("require-statement-timeout", "The tool sets the timeouts, and `timeouts-not-overridden` guards "
              "them."),
    Exclusion("require-timeout-settings", "The name of the last two before squawk 2.60."),
    Exclusion("require-table-schema", "A revision never says `public.`: it is run in a scratch schema too."),
    Exclusion("require-enum-value-ordering", "A new value comes last, as in the models."),
    Exclusion("adding-foreign-key-constraint", "`constraint-missing-not-valid` finds what reads rows. This one "
              "also refuses a new column with REFERENCES, which is NULL everywhere and reads none."),
    Exclusion("ban-concurrent-index-creation-in-transaction", "`one-concurrently` finds it, and the other "
              "statements with CONCURRENTLY."),
    Exclusion("unused-ignore", "Ignores are comments of Python here."),
    Exclusion("ban-drop-column", "To drop what the way forward made is what a way back is for; in production "
              "the guard asks before it.", ("down",)),
    Exclusion("ban-drop-table", "As for a column.", ("down",)),
    Exclusion("ban-drop-not-null", "The application version before ran with NULL.", ("down",)),
)
