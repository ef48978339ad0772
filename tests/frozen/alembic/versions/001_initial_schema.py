"""initial schema

Revision ID: 001
Revises: nothing
"""

from __future__ import annotations

from alembic import op

revision: str = "001"
down_revision: str | None = None


def upgrade() -> None:
    create_extensions()
    create_types()
    create_incidents()
    create_events()
    create_signals()
    create_incident_signals()
    create_schedules()
    create_schedule_shifts()
    create_notification_rules()
    create_triggers()


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS notification_rules")
    op.execute("DROP TABLE IF EXISTS schedule_shifts")
    op.execute("DROP TABLE IF EXISTS schedules")
    op.execute("DROP TABLE IF EXISTS incident_signals")
    op.execute("DROP TABLE IF EXISTS signals")
    op.execute("DROP TABLE IF EXISTS events")
    op.execute("DROP TABLE IF EXISTS incidents")
    op.execute("DROP FUNCTION IF EXISTS update_updated_at_column()")
    op.execute("DROP TYPE IF EXISTS channel_type")
    op.execute("DROP TYPE IF EXISTS incident_severity")
    op.execute("DROP TYPE IF EXISTS incident_status")
    # The extensions stay, and so does a uuid_generate_v4() that belongs to one: only the stand-in is ours.
    op.execute("""
        DO $$
        BEGIN
            IF EXISTS (
                SELECT FROM pg_proc
                WHERE proname = 'uuid_generate_v4'
                  AND pronargs = 0
                  AND pronamespace = current_schema()::regnamespace
                  AND NOT EXISTS (
                      SELECT FROM pg_depend
                      WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'
                  )
            ) THEN
                DROP FUNCTION uuid_generate_v4();
            END IF;
        END
        $$
    """)


def create_extensions() -> None:
    """Take the extensions where they can be had; make the one function that the tables need where not.

    Not available is 0A000 (58P01 before PostgreSQL 15), refused is 42501. A stand-in that is already there is
    kept: the extension could not be created beside it.
    """
    op.execute("""
        DO $$
        BEGIN
            IF to_regprocedure('uuid_generate_v4()') IS NULL THEN
                CREATE EXTENSION IF NOT EXISTS "uuid-ossp";
            END IF;
        EXCEPTION
            WHEN feature_not_supported OR undefined_file OR insufficient_privilege THEN
                RAISE NOTICE USING MESSAGE = 'uuid-ossp is not used: ' || SQLERRM;
        END
        $$
    """)
    op.execute("""
        DO $$
        BEGIN
            CREATE EXTENSION IF NOT EXISTS btree_gin;
        EXCEPTION
            WHEN feature_not_supported OR undefined_file OR insufficient_privilege THEN
                RAISE NOTICE USING MESSAGE = 'btree_gin is not used: ' || SQLERRM;
        END
        $$
    """)
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_depend
                WHERE classid = 'pg_proc'::regclass
                  AND objid = to_regprocedure('uuid_generate_v4()')
                  AND deptype = 'e'
            ) THEN
                CREATE FUNCTION uuid_generate_v4() RETURNS uuid
                LANGUAGE sql VOLATILE PARALLEL SAFE
                AS 'SELECT pg_catalog.gen_random_uuid()';
            END IF;
        EXCEPTION
            WHEN duplicate_function THEN NULL;
        END
        $$
    """)


def create_types() -> None:
    op.execute("""
        DO $$
        BEGIN
            CREATE TYPE incident_status AS ENUM ('triggered', 'acknowledged', 'investigating', 'resolved');
        EXCEPTION
            WHEN duplicate_object THEN NULL;
        END
        $$
    """)
    op.execute("""
        DO $$
        BEGIN
            CREATE TYPE incident_severity AS ENUM ('critical', 'high', 'medium', 'low', 'info');
        EXCEPTION
            WHEN duplicate_object THEN NULL;
        END
        $$
    """)
    op.execute("""
        DO $$
        BEGIN
            CREATE TYPE channel_type AS ENUM ('email', 'slack', 'sms', 'webhook', 'pagerduty');
        EXCEPTION
            WHEN duplicate_object THEN NULL;
        END
        $$
    """)


def create_incidents() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS incidents (
            id           uuid              NOT NULL DEFAULT uuid_generate_v4(),
            title        varchar(200)      NOT NULL,
            description  text,
            status       incident_status   NOT NULL DEFAULT 'triggered',
            severity     incident_severity NOT NULL,
            team_id      varchar(255)      NOT NULL,
            assignee_id  varchar(255),
            service_id   varchar(255),
            labels       jsonb             DEFAULT '{}',
            created_at   timestamptz       NOT NULL DEFAULT now(),
            updated_at   timestamptz       NOT NULL DEFAULT now(),
            resolved_at  timestamptz,
            CONSTRAINT incidents_pkey PRIMARY KEY (id),
            CONSTRAINT incident_title_not_empty CHECK (length(trim(title)) > 0),
            CONSTRAINT incident_team_id_not_empty CHECK (length(trim(team_id)) > 0),
            CONSTRAINT incident_resolved_check CHECK (
                (status = 'resolved' AND resolved_at IS NOT NULL)
                OR (status <> 'resolved' AND resolved_at IS NULL)
            )
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_status ON incidents (status)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_severity ON incidents (severity)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_team_id ON incidents (team_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_incidents_assignee_id
        ON incidents (assignee_id) WHERE assignee_id IS NOT NULL
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_incidents_service_id
        ON incidents (service_id) WHERE service_id IS NOT NULL
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_created_at ON incidents (created_at)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_updated_at ON incidents (updated_at)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_incidents_resolved_at
        ON incidents (resolved_at) WHERE resolved_at IS NOT NULL
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_labels ON incidents USING gin (labels)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_team_status ON incidents (team_id, status)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_incidents_team_severity ON incidents (team_id, severity)")


def create_events() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS events (
            id           uuid         NOT NULL DEFAULT uuid_generate_v4(),
            incident_id  uuid         NOT NULL,
            type         varchar(100) NOT NULL,
            actor        varchar(255) NOT NULL,
            description  text         NOT NULL,
            metadata     jsonb        DEFAULT '{}',
            occurred_at  timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT events_pkey PRIMARY KEY (id),
            CONSTRAINT events_incident_id_fkey
                FOREIGN KEY (incident_id) REFERENCES incidents (id) ON DELETE CASCADE,
            CONSTRAINT event_type_not_empty CHECK (length(trim(type)) > 0),
            CONSTRAINT event_actor_not_empty CHECK (length(trim(actor)) > 0),
            CONSTRAINT event_description_not_empty CHECK (length(trim(description)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_incident_id ON events (incident_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_type ON events (type)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_actor ON events (actor)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_occurred_at ON events (occurred_at)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_metadata ON events USING gin (metadata)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_events_incident_occurred ON events (incident_id, occurred_at)")


def create_signals() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS signals (
            id           uuid              NOT NULL DEFAULT uuid_generate_v4(),
            source       varchar(255)      NOT NULL,
            title        varchar(500)      NOT NULL,
            description  text,
            severity     incident_severity NOT NULL,
            labels       jsonb             DEFAULT '{}',
            annotations  jsonb             DEFAULT '{}',
            payload      jsonb             DEFAULT '{}',
            received_at  timestamptz       NOT NULL DEFAULT now(),
            CONSTRAINT signals_pkey PRIMARY KEY (id),
            CONSTRAINT signal_source_not_empty CHECK (length(trim(source)) > 0),
            CONSTRAINT signal_title_not_empty CHECK (length(trim(title)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_source ON signals (source)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_severity ON signals (severity)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_received_at ON signals (received_at)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_labels ON signals USING gin (labels)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_annotations ON signals USING gin (annotations)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_payload ON signals USING gin (payload)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_signals_source_received ON signals (source, received_at)")


def create_incident_signals() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS incident_signals (
            incident_id  uuid        NOT NULL,
            signal_id    uuid        NOT NULL,
            attached_at  timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT incident_signals_pkey PRIMARY KEY (incident_id, signal_id),
            CONSTRAINT incident_signals_incident_id_fkey
                FOREIGN KEY (incident_id) REFERENCES incidents (id) ON DELETE CASCADE,
            CONSTRAINT incident_signals_signal_id_fkey
                FOREIGN KEY (signal_id) REFERENCES signals (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_incident_signals_signal_id ON incident_signals (signal_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_incident_signals_attached_at
        ON incident_signals (attached_at)
    """)


def create_schedules() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS schedules (
            id           uuid         NOT NULL DEFAULT uuid_generate_v4(),
            name         varchar(255) NOT NULL,
            description  text,
            team_id      varchar(255) NOT NULL,
            timezone     varchar(100) NOT NULL DEFAULT 'UTC',
            config       jsonb        NOT NULL DEFAULT '{}',
            active       boolean      NOT NULL DEFAULT true,
            created_at   timestamptz  NOT NULL DEFAULT now(),
            updated_at   timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT schedules_pkey PRIMARY KEY (id),
            CONSTRAINT schedule_name_not_empty CHECK (length(trim(name)) > 0),
            CONSTRAINT schedule_team_id_not_empty CHECK (length(trim(team_id)) > 0),
            CONSTRAINT schedule_timezone_not_empty CHECK (length(trim(timezone)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedules_team_id ON schedules (team_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedules_active ON schedules (active) WHERE active = true")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedules_config ON schedules USING gin (config)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedules_team_active ON schedules (team_id, active)")


def create_schedule_shifts() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS schedule_shifts (
            id           uuid         NOT NULL DEFAULT uuid_generate_v4(),
            schedule_id  uuid         NOT NULL,
            user_id      varchar(255) NOT NULL,
            start_time   timestamptz  NOT NULL,
            end_time     timestamptz  NOT NULL,
            created_at   timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT schedule_shifts_pkey PRIMARY KEY (id),
            CONSTRAINT schedule_shifts_schedule_id_fkey
                FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE CASCADE,
            CONSTRAINT shift_user_id_not_empty CHECK (length(trim(user_id)) > 0),
            CONSTRAINT shift_time_order CHECK (start_time < end_time)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_shifts_schedule_id ON schedule_shifts (schedule_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_shifts_user_id ON schedule_shifts (user_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_shifts_start_time ON schedule_shifts (start_time)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_shifts_end_time ON schedule_shifts (end_time)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_shifts_time_range
        ON schedule_shifts (start_time, end_time)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_shifts_user_time
        ON schedule_shifts (user_id, start_time, end_time)
    """)


def create_notification_rules() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS notification_rules (
            id              uuid              NOT NULL DEFAULT uuid_generate_v4(),
            name            varchar(255)      NOT NULL,
            team_id         varchar(255)      NOT NULL,
            severity        incident_severity NOT NULL,
            channel_type    channel_type      NOT NULL,
            channel_config  jsonb             NOT NULL DEFAULT '{}',
            delay_minutes   integer           NOT NULL DEFAULT 0,
            active          boolean           NOT NULL DEFAULT true,
            created_at      timestamptz       NOT NULL DEFAULT now(),
            updated_at      timestamptz       NOT NULL DEFAULT now(),
            CONSTRAINT notification_rules_pkey PRIMARY KEY (id),
            CONSTRAINT notification_rule_name_not_empty CHECK (length(trim(name)) > 0),
            CONSTRAINT notification_rule_team_id_not_empty CHECK (length(trim(team_id)) > 0),
            CONSTRAINT notification_rule_delay_positive CHECK (delay_minutes >= 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_notification_rules_team_id ON notification_rules (team_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_notification_rules_severity ON notification_rules (severity)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_notification_rules_channel_type
        ON notification_rules (channel_type)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_notification_rules_active
        ON notification_rules (active) WHERE active = true
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_notification_rules_config
        ON notification_rules USING gin (channel_config)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_notification_rules_team_severity
        ON notification_rules (team_id, severity)
    """)


def create_triggers() -> None:
    # Not indented: the server keeps the body to the letter.
    op.execute("""
CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at = NOW();
    RETURN NEW;
END;
$$
    """)
    # The guard only reads the catalog: CREATE OR REPLACE TRIGGER would stop all writes to an existing table.
    for table in ("schedules", "notification_rules", "incidents"):
        op.execute(f"""
            DO $$
            BEGIN
                IF NOT EXISTS (
                    SELECT FROM pg_trigger
                    WHERE tgrelid = '{table}'::regclass AND tgname = 'update_{table}_updated_at'
                ) THEN
                    CREATE TRIGGER update_{table}_updated_at
                    BEFORE UPDATE ON {table}
                    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
                END IF;
            END
            $$
        """)
