"""add schedules, escalation and audit

Revision ID: 002
Revises: 001
"""

from __future__ import annotations

from alembic import op

revision: str = "002"
down_revision: str | None = "001"


def upgrade() -> None:
    create_escalation_policies()
    create_escalation_steps()
    create_audit_logs()
    create_team_preferences()
    # A foreign key to schedules stops writes to it until the commit, so these come late.
    create_schedule_rotations()
    create_schedule_overrides()
    create_triggers()
    link_incidents()


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS audit_logs")
    op.execute("DROP TABLE IF EXISTS team_preferences")
    op.execute("DROP TABLE IF EXISTS schedule_overrides")
    op.execute("DROP TABLE IF EXISTS schedule_rotations")
    # With its foreign key this takes the lock on escalation_policies too, which the next statements need:
    # so nothing waits for that lock while it already holds the one on incidents.
    op.execute("DROP TABLE IF EXISTS escalation_steps")
    # The index and the foreign key go with the column.
    op.execute("ALTER TABLE incidents DROP COLUMN IF EXISTS escalation_policy_id")
    op.execute("DROP TABLE IF EXISTS escalation_policies")


def create_escalation_policies() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS escalation_policies (
            id             uuid         NOT NULL DEFAULT uuid_generate_v4(),
            name           varchar(255) NOT NULL,
            team_id        varchar(255) NOT NULL,
            description    text,
            policy_config  jsonb        NOT NULL DEFAULT '{}',
            active         boolean      NOT NULL DEFAULT true,
            created_at     timestamptz  NOT NULL DEFAULT now(),
            updated_at     timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT escalation_policies_pkey PRIMARY KEY (id),
            CONSTRAINT escalation_policy_name_not_empty CHECK (length(trim(name)) > 0),
            CONSTRAINT escalation_policy_team_id_not_empty CHECK (length(trim(team_id)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_escalation_policies_team_id ON escalation_policies (team_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_escalation_policies_active
        ON escalation_policies (active) WHERE active = true
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_escalation_policies_config
        ON escalation_policies USING gin (policy_config)
    """)


def create_escalation_steps() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS escalation_steps (
            id             uuid         NOT NULL DEFAULT uuid_generate_v4(),
            policy_id      uuid         NOT NULL,
            step_order     integer      NOT NULL,
            step_type      varchar(50)  NOT NULL,
            target_id      varchar(255) NOT NULL,
            delay_minutes  integer      NOT NULL DEFAULT 0,
            step_config    jsonb        DEFAULT '{}',
            CONSTRAINT escalation_steps_pkey PRIMARY KEY (id),
            CONSTRAINT escalation_steps_policy_id_fkey
                FOREIGN KEY (policy_id) REFERENCES escalation_policies (id) ON DELETE CASCADE,
            CONSTRAINT escalation_steps_policy_id_step_order_key UNIQUE (policy_id, step_order),
            CONSTRAINT escalation_step_order_positive CHECK (step_order > 0),
            CONSTRAINT escalation_step_type_valid CHECK (step_type IN ('user', 'schedule', 'webhook')),
            CONSTRAINT escalation_target_id_not_empty CHECK (length(trim(target_id)) > 0),
            CONSTRAINT escalation_delay_positive CHECK (delay_minutes >= 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_escalation_steps_policy_id ON escalation_steps (policy_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_escalation_steps_order
        ON escalation_steps (policy_id, step_order)
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_escalation_steps_type ON escalation_steps (step_type)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_escalation_steps_target ON escalation_steps (target_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_escalation_steps_config
        ON escalation_steps USING gin (step_config)
    """)


def create_audit_logs() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS audit_logs (
            id           uuid         NOT NULL DEFAULT uuid_generate_v4(),
            entity_type  varchar(100) NOT NULL,
            entity_id    varchar(255) NOT NULL,
            action       varchar(100) NOT NULL,
            actor        varchar(255) NOT NULL,
            changes      jsonb        DEFAULT '{}',
            metadata     jsonb        DEFAULT '{}',
            occurred_at  timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT audit_logs_pkey PRIMARY KEY (id),
            CONSTRAINT audit_entity_type_not_empty CHECK (length(trim(entity_type)) > 0),
            CONSTRAINT audit_entity_id_not_empty CHECK (length(trim(entity_id)) > 0),
            CONSTRAINT audit_action_not_empty CHECK (length(trim(action)) > 0),
            CONSTRAINT audit_actor_not_empty CHECK (length(trim(actor)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_entity ON audit_logs (entity_type, entity_id)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_action ON audit_logs (action)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_actor ON audit_logs (actor)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_occurred_at ON audit_logs (occurred_at)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_changes ON audit_logs USING gin (changes)")
    op.execute("CREATE INDEX IF NOT EXISTS idx_audit_logs_metadata ON audit_logs USING gin (metadata)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_audit_logs_entity_occurred
        ON audit_logs (entity_type, entity_id, occurred_at)
    """)


def create_team_preferences() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS team_preferences (
            id           uuid         NOT NULL DEFAULT uuid_generate_v4(),
            team_id      varchar(255) NOT NULL,
            preferences  jsonb        NOT NULL DEFAULT '{}',
            created_at   timestamptz  NOT NULL DEFAULT now(),
            updated_at   timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT team_preferences_pkey PRIMARY KEY (id),
            CONSTRAINT team_preferences_team_id_key UNIQUE (team_id),
            CONSTRAINT team_preferences_team_id_not_empty CHECK (length(trim(team_id)) > 0)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_team_preferences_team_id ON team_preferences (team_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_team_preferences_prefs
        ON team_preferences USING gin (preferences)
    """)


def create_schedule_rotations() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS schedule_rotations (
            id               uuid         NOT NULL DEFAULT uuid_generate_v4(),
            schedule_id      uuid         NOT NULL,
            name             varchar(255) NOT NULL,
            rotation_type    varchar(50)  NOT NULL,
            rotation_config  jsonb        NOT NULL DEFAULT '{}',
            participants     jsonb        NOT NULL DEFAULT '[]',
            start_date       date         NOT NULL,
            end_date         date,
            active           boolean      NOT NULL DEFAULT true,
            created_at       timestamptz  NOT NULL DEFAULT now(),
            updated_at       timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT schedule_rotations_pkey PRIMARY KEY (id),
            CONSTRAINT schedule_rotations_schedule_id_fkey
                FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE CASCADE,
            CONSTRAINT rotation_name_not_empty CHECK (length(trim(name)) > 0),
            CONSTRAINT rotation_type_valid CHECK (rotation_type IN ('daily', 'weekly', 'monthly')),
            CONSTRAINT rotation_date_order CHECK (end_date IS NULL OR start_date <= end_date)
        )
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_rotations_schedule_id
        ON schedule_rotations (schedule_id)
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_rotations_type ON schedule_rotations (rotation_type)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_rotations_dates
        ON schedule_rotations (start_date, end_date)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_rotations_active
        ON schedule_rotations (active) WHERE active = true
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_rotations_config
        ON schedule_rotations USING gin (rotation_config)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_rotations_participants
        ON schedule_rotations USING gin (participants)
    """)


def create_schedule_overrides() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS schedule_overrides (
            id                uuid         NOT NULL DEFAULT uuid_generate_v4(),
            schedule_id       uuid         NOT NULL,
            user_id           varchar(255) NOT NULL,
            override_user_id  varchar(255) NOT NULL,
            start_time        timestamptz  NOT NULL,
            end_time          timestamptz  NOT NULL,
            reason            varchar(500),
            created_by        varchar(255) NOT NULL,
            created_at        timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT schedule_overrides_pkey PRIMARY KEY (id),
            CONSTRAINT schedule_overrides_schedule_id_fkey
                FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE CASCADE,
            CONSTRAINT override_user_id_not_empty CHECK (length(trim(user_id)) > 0),
            CONSTRAINT override_override_user_id_not_empty CHECK (length(trim(override_user_id)) > 0),
            CONSTRAINT override_created_by_not_empty CHECK (length(trim(created_by)) > 0),
            CONSTRAINT override_time_order CHECK (start_time < end_time)
        )
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_overrides_schedule_id
        ON schedule_overrides (schedule_id)
    """)
    op.execute("CREATE INDEX IF NOT EXISTS idx_schedule_overrides_user_id ON schedule_overrides (user_id)")
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_overrides_override_user_id
        ON schedule_overrides (override_user_id)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_overrides_time_range
        ON schedule_overrides (start_time, end_time)
    """)
    op.execute("""
        CREATE INDEX IF NOT EXISTS idx_schedule_overrides_created_by
        ON schedule_overrides (created_by)
    """)


def create_triggers() -> None:
    # The guard only reads the catalog: CREATE OR REPLACE TRIGGER would stop all writes to an existing table.
    for table in ("escalation_policies", "team_preferences", "schedule_rotations"):
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


def link_incidents() -> None:
    # ADD COLUMN IF NOT EXISTS locks the table before it looks. A run that resumes this revision would then
    # wait behind the index build that an interrupted run left on the server, and everyone else behind it.
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_attribute
                WHERE attrelid = 'incidents'::regclass
                  AND attname = 'escalation_policy_id'
                  AND NOT attisdropped
            ) THEN
                ALTER TABLE incidents
                ADD COLUMN escalation_policy_id uuid
                CONSTRAINT incidents_escalation_policy_id_fkey REFERENCES escalation_policies (id);
            END IF;
        END
        $$
    """)
    op.create_index_concurrently(
        "idx_incidents_escalation_policy",
        """
        CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_incidents_escalation_policy
        ON incidents (escalation_policy_id) WHERE escalation_policy_id IS NOT NULL
        """,
    )
