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


_DROPPED = ("view", "function", "type", "schema", "sequence", "domain", "extension", "generated-expression")

RULES = (
    SquawkRule(
        "require-concurrent-index-creation",
        "CREATE INDEX stops all writes to the table until the index is built.",
        "op.create_index_concurrently",
        'op.execute("CREATE INDEX IF NOT EXISTS idx_signals_title ON signals (title)")',
        """\
op.create_index_concurrently(
    "idx_signals_title",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_title ON signals (title)",
)""",
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
        '''\
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE signals ADD CONSTRAINT signal_title_set CHECK (title <> '');
    EXCEPTION
        WHEN duplicate_object THEN NULL;
    END
    $$
""")''',
        '''\
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE signals ADD CONSTRAINT signal_title_set CHECK (title <> '') NOT VALID;
    EXCEPTION
        WHEN duplicate_object THEN NULL;
    END
    $$
""")
op.validate_constraint("signals", "signal_title_set")''',
    ),
    SquawkRule(
        "adding-not-nullable-field",
        "SET NOT NULL reads the whole table under a lock that stops its readers and writers.",
        "op.set_not_null",
        """\
op.execute("UPDATE schedules SET description = '' WHERE description IS NULL")
op.execute("ALTER TABLE schedules ALTER COLUMN description SET NOT NULL")""",
        """\
op.execute("UPDATE schedules SET description = '' WHERE description IS NULL")
op.set_not_null("schedules", "description")""",
    ),
    SquawkRule(
        "adding-field-with-default",
        "A default that is computed for each row rewrites the table under a lock that stops its readers and "
        "writers. A constant does not.",
        "Add the column without a default, then SET DEFAULT, then op.backfill.",
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid DEFAULT uuid_generate_v4()")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid")
op.execute("ALTER TABLE signals ALTER COLUMN token SET DEFAULT uuid_generate_v4()")
op.backfill("signals", "token = uuid_generate_v4()", "token IS NULL")""",
    ),
    SquawkRule(
        "adding-required-field",
        "A new NOT NULL column without a default fails as soon as the table has a row, and so does every "
        "INSERT of the application version that is running.",
        "Give it a default, or let it be NULL until every version writes it.",
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL DEFAULT 'eu'")""",
    ),
    SquawkRule(
        "adding-serial-primary-key-field",
        "A new primary key rewrites the table, or reads it, under a lock that stops readers and writers.",
        "A unique index built concurrently, then ADD CONSTRAINT ... PRIMARY KEY USING INDEX.",
    ),
    SquawkRule(
        "changing-column-type",
        "Another type rewrites the table under a lock that stops its readers and writers, and the "
        "application version that is running still expects the old one.",
        "A new column, a backfill, and a later revision that drops the old column.",
        'op.execute("ALTER TABLE signals ALTER COLUMN title TYPE text")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS full_title text")
op.backfill("signals", "full_title = title", "full_title IS NULL")""",
    ),
    SquawkRule(
        "disallowed-unique-constraint",
        "A new unique constraint builds its index under a lock that stops readers and writers.",
        "A unique index built concurrently, then ADD CONSTRAINT ... UNIQUE USING INDEX.",
        '''\
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE schedules ADD CONSTRAINT schedules_name_key UNIQUE (name);
    EXCEPTION
        WHEN duplicate_table THEN NULL;
    END
    $$
""")''',
        '''\
op.create_index_concurrently(
    "schedules_name_key",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS schedules_name_key ON schedules (name)",
)
op.execute("""
    DO $$
    BEGIN
        IF to_regclass('schedules_name_key') IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_constraint WHERE conindid = 'schedules_name_key'::regclass
        ) THEN
            ALTER TABLE schedules
            ADD CONSTRAINT schedules_name_key UNIQUE USING INDEX schedules_name_key;
        END IF;
    END
    $$
""")''',
    ),
    SquawkRule(
        "renaming-column",
        "The application version that is running knows the old name and fails at once.",
        "A new column, a backfill, and a later revision that drops the old column.",
        '''\
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE schedules RENAME COLUMN active TO enabled;
    EXCEPTION
        WHEN undefined_column THEN NULL;
    END
    $$
""")''',
        """\
op.execute("ALTER TABLE schedules ADD COLUMN IF NOT EXISTS enabled boolean NOT NULL DEFAULT true")
op.backfill("schedules", "enabled = active", "enabled <> active")""",
    ),
    SquawkRule(
        "renaming-table",
        "The application version that is running knows the old name and fails at once.",
        "A new table, filled by the application and a backfill, or leave the name.",
        '''\
op.execute("""
    DO $$
    BEGIN
        ALTER TABLE audit_logs RENAME TO audit_entries;
    EXCEPTION
        WHEN undefined_table THEN NULL;
    END
    $$
""")''',
        'op.execute("CREATE TABLE IF NOT EXISTS audit_entries (LIKE audit_logs INCLUDING ALL)")',
    ),
    SquawkRule(
        "ban-drop-column",
        "The rows lose what the column held, and an application version that still reads it fails.",
        "Wait until no version uses the column; then ignore the rule and say so: it marks the loss for the "
        "reviewer.",
        'op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")',
        """\
# lint: ignore ban-drop-column: no version since 4.2 reads or writes it
op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")""",
    ),
    SquawkRule(
        "ban-drop-table",
        "The rows are lost, and an application version that still uses the table fails.",
        "Wait until no version uses the table; then ignore the rule and say so: it marks the loss for the "
        "reviewer.",
        'op.execute("DROP TABLE IF EXISTS audit_logs")',
        """\
# lint: ignore ban-drop-table: written by no version since 4.2, kept in the archive
op.execute("DROP TABLE IF EXISTS audit_logs")""",
    ),
    SquawkRule(
        "ban-drop-not-null",
        "An application version that counts on a value meets NULL.",
        "Wait until every version that runs can read NULL; then ignore the rule and say so.",
    ),
    SquawkRule(
        "ban-drop-default",
        "An INSERT of the application version that is running leaves the column NULL, or fails.",
        "Wait until every version that runs writes the column; then ignore the rule and say so.",
    ),
    SquawkRule(
        "ban-drop-constraint",
        "An application version that counts on it meets rows that break it.",
        "Make sure that no version counts on it; then ignore the rule and say so.",
    ),
    *(
        SquawkRule(
            f"ban-drop-{kind}",
            "An application version that uses it fails.",
            "Wait until no version uses it; then ignore the rule and say so.",
        )
        for kind in _DROPPED
    ),
    SquawkRule(
        "renaming-object",
        "An application version that knows the old name of the type, value, view or constraint fails.",
        "Leave the name, or make sure that no version knows it; then ignore the rule and say so.",
    ),
    SquawkRule("ban-set-schema", "The application looks in public.", "Leave the object where it is."),
    SquawkRule(
        "ban-alter-identity",
        "An INSERT that gives a value fails, or is given another.",
        "Leave the column as it is, or make sure that no version is hurt; then ignore the rule and say so.",
    ),
    SquawkRule("ban-drop-database", "It holds everything.", "Nothing: no revision needs it."),
    SquawkRule(
        "ban-truncate-cascade", "It empties tables that the statement does not name.", "Name each table."
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
    SquawkRule("identifier-too-long", "PostgreSQL cuts a name off after 63 bytes.", "A shorter name."),
    SquawkRule("ban-duplicate-column-assignments", "PostgreSQL refuses it.", "Assign the column once."),
    SquawkRule("ban-char-field", "char(n) pads with blanks.", "varchar or text."),
    SquawkRule(
        "prefer-timestamp-tz", "Without a time zone, nobody knows which moment it was.", "timestamptz"
    ),
    SquawkRule(
        "prefer-identity",
        "The sequence of serial has an owner and privileges of its own.",
        "uuid, as the other tables, or GENERATED BY DEFAULT AS IDENTITY.",
    ),
    SquawkRule(
        "ban-create-domain-with-constraint",
        "The constraint cannot be changed without reading every table that uses the domain.",
        "A check of the column.",
    ),
    SquawkRule(
        "ban-alter-domain-with-add-constraint",
        "It reads every table that uses the domain under a lock.",
        "A check of the column.",
    ),
)

# squawk says of a new key, too, that it is not NOT VALID; but a key cannot be.
KEYS = ("disallowed-unique-constraint", "adding-serial-primary-key-field")

EXCLUDED = (
    Exclusion("prefer-text-field", "The deployed tables have varchar with a length, and new ones go along."),
    Exclusion("prefer-bigint-over-int", "The deployed tables count minutes and positions in integer."),
    Exclusion("prefer-bigint-over-smallint", "As for integer: the numbers are small and no keys."),
    Exclusion(
        "prefer-robust-stmts",
        "`idempotent-statements` asks for more kinds of statements, and lets pass "
        "what can be repeated as it is, such as SET DEFAULT.",
    ),
    Exclusion(
        "require-lock-timeout", "The tool sets the timeouts, and `timeouts-not-overridden` guards them."
    ),
    Exclusion(
        "require-statement-timeout", "The tool sets the timeouts, and `timeouts-not-overridden` guards them."
    ),
    Exclusion("require-timeout-settings", "The older name of the last two."),
    Exclusion("require-table-schema", "`no-schema-name` asks for the opposite."),
    Exclusion("require-enum-value-ordering", "A new value comes last, as in the models."),
    Exclusion(
        "adding-foreign-key-constraint",
        "`constraint-missing-not-valid` finds what reads rows. This one "
        "also refuses a new column with REFERENCES, which is NULL everywhere and reads none.",
    ),
    Exclusion(
        "ban-concurrent-index-creation-in-transaction",
        "`one-concurrently` finds it, and the other statements with CONCURRENTLY.",
    ),
    Exclusion("syntax-error", "`readable` asks PostgreSQL's own parser."),
    Exclusion("transaction-nesting", "`no-transaction-control` finds it."),
    Exclusion("ban-uncommitted-transaction", "`no-transaction-control` finds it."),
    Exclusion("unused-ignore", "Ignores are comments of Python here."),
    *(
        Exclusion(
            f"ban-drop-{kind}",
            "To drop what the way forward made is what a way back does; in production the guard asks first.",
            ("down",),
        )
        for kind in ("column", "table", "not-null", "default", "constraint", *_DROPPED)
    ),
)
