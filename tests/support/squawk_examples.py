"""Bodies of ``upgrade()`` that break a rule of squawk and no other, each with the same thing done well."""

from __future__ import annotations

SQUAWK_EXAMPLES = {
    "require-concurrent-index-creation": (
        'op.execute("CREATE INDEX IF NOT EXISTS idx_signals_title ON signals (title)")',
        """\
op.create_index_concurrently(
    "idx_signals_title",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_signals_title ON signals (title)",
)""",
    ),
    "require-concurrent-index-deletion": (
        'op.execute("DROP INDEX IF EXISTS idx_signals_title")',
        'op.drop_index_concurrently("idx_signals_title")',
    ),
    "constraint-missing-not-valid": (
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
    "adding-not-nullable-field": (
        """\
op.backfill("schedules", "description = ''", "description IS NULL")
op.execute("ALTER TABLE schedules ALTER COLUMN description SET NOT NULL")""",
        """\
op.backfill("schedules", "description = ''", "description IS NULL")
op.set_not_null("schedules", "description")""",
    ),
    "adding-field-with-default": (
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid DEFAULT uuid_generate_v4()")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS token uuid")
op.execute("ALTER TABLE signals ALTER COLUMN token SET DEFAULT uuid_generate_v4()")
op.backfill("signals", "token = uuid_generate_v4()", "token IS NULL")""",
    ),
    "adding-required-field": (
        'op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS region varchar(50) NOT NULL DEFAULT 'eu'")""",
    ),
    "changing-column-type": (
        'op.execute("ALTER TABLE signals ALTER COLUMN title TYPE varchar(100)")',
        """\
op.execute("ALTER TABLE signals ADD COLUMN IF NOT EXISTS short_title varchar(100)")
op.backfill("signals", "short_title = left(title, 100)", "short_title IS NULL")""",
    ),
    "disallowed-unique-constraint": (
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
    "renaming-column": (
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
    "renaming-table": (
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
    "ban-drop-column": (
        'op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")',
        """\
# lint: ignore ban-drop-column: no version since 4.2 reads or writes it
op.execute("ALTER TABLE signals DROP COLUMN IF EXISTS payload")""",
    ),
    "ban-drop-table": (
        'op.execute("DROP TABLE IF EXISTS audit_logs")',
        """\
# lint: ignore ban-drop-table: written by no version since 4.2, kept in the archive
op.execute("DROP TABLE IF EXISTS audit_logs")""",
    ),
}
