"""The schema of a Guvnor database at the newest revision, as SQLAlchemy metadata.

The revisions create the schema; the models describe it. ``metadata.create_all()`` on an empty database gives
the same catalogs as the revisions. Names are unqualified, so the tables are created in the first schema of
the search path. Where another schema has these tables already, call ``create_all(checkfirst=False)``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from guvnor.database_objects import function, trigger

# The names that PostgreSQL itself would choose. They are part of the interface: the application passes on the
# names of violated constraints.
metadata = MetaData(
    naming_convention={
        "ix": "idx_%(table_name)s_%(column_0_N_name)s",
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)

incident_status = Enum(
    "triggered", "acknowledged", "investigating", "resolved", name="incident_status", metadata=metadata
)
incident_severity = Enum(
    "critical", "high", "medium", "low", "info", name="incident_severity", metadata=metadata
)
channel_type = Enum("email", "slack", "sms", "webhook", "pagerduty", name="channel_type", metadata=metadata)


def uuid_key() -> Column[Any]:
    """Return the primary key ``id``, a random UUID."""
    return Column("id", UUID, primary_key=True, server_default=text("uuid_generate_v4()"))


def reference(name: str, to: str) -> Column[Any]:
    """Return a foreign key column; its rows are deleted together with the row that they refer to."""
    return Column(name, UUID, ForeignKey(f"{to}.id", ondelete="CASCADE"), nullable=False)


def moment(name: str) -> Column[Any]:
    """Return a timestamp column; the default is the start of the transaction."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def document(name: str, *, nullable: bool = False, default: str = "{}") -> Column[Any]:
    """Return a JSON column; the default is an empty value."""
    return Column(name, JSONB, nullable=nullable, server_default=text(f"'{default}'::jsonb"))


def active() -> Column[Any]:
    """Return the boolean column ``active``; the default is true."""
    return Column("active", Boolean, nullable=False, server_default=text("true"))


def delay() -> Column[Any]:
    """Return the column ``delay_minutes``; the default is 0."""
    return Column("delay_minutes", Integer, nullable=False, server_default=text("0"))


def not_empty(column: str, *, name: str) -> CheckConstraint:
    """Return a check that text holds more than spaces."""
    return CheckConstraint(f"length(trim({column})) > 0", name=name)


def where_set(name: str, column: str) -> Index:
    """Return an index over the rows where the column is not null."""
    return Index(name, column, postgresql_where=text(f"{column} IS NOT NULL"))


def where_active(name: str) -> Index:
    """Return an index over the active rows."""
    return Index(name, "active", postgresql_where=text("active = true"))


def gin(name: str, column: str) -> Index:
    """Return an index for containment queries (``@>``) on a JSON column."""
    return Index(name, column, postgresql_using="gin")


incidents = Table(
    "incidents",
    metadata,
    uuid_key(),
    Column("title", String(200), nullable=False),
    Column("description", Text),
    Column("status", incident_status, nullable=False, server_default=text("'triggered'::incident_status")),
    Column("severity", incident_severity, nullable=False),
    Column("team_id", String(255), nullable=False),
    Column("assignee_id", String(255)),
    Column("service_id", String(255)),
    document("labels", nullable=True),
    moment("created_at"),
    moment("updated_at"),
    Column("resolved_at", DateTime(timezone=True)),
    Column("escalation_policy_id", UUID, ForeignKey("escalation_policies.id")),
    not_empty("title", name="incident_title_not_empty"),
    not_empty("team_id", name="incident_team_id_not_empty"),
    CheckConstraint(
        "(status = 'resolved' AND resolved_at IS NOT NULL) OR (status <> 'resolved' AND resolved_at IS NULL)",
        name="incident_resolved_check",
    ),
    Index("idx_incidents_status", "status"),
    Index("idx_incidents_severity", "severity"),
    Index("idx_incidents_team_id", "team_id"),
    where_set("idx_incidents_assignee_id", "assignee_id"),
    where_set("idx_incidents_service_id", "service_id"),
    Index("idx_incidents_created_at", "created_at"),
    Index("idx_incidents_updated_at", "updated_at"),
    where_set("idx_incidents_resolved_at", "resolved_at"),
    gin("idx_incidents_labels", "labels"),
    Index("idx_incidents_team_status", "team_id", "status"),
    Index("idx_incidents_team_severity", "team_id", "severity"),
    where_set("idx_incidents_escalation_policy", "escalation_policy_id"),
)

events = Table(
    "events",
    metadata,
    uuid_key(),
    reference("incident_id", to="incidents"),
    Column("type", String(100), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("description", Text, nullable=False),
    document("metadata", nullable=True),
    moment("occurred_at"),
    not_empty("type", name="event_type_not_empty"),
    not_empty("actor", name="event_actor_not_empty"),
    not_empty("description", name="event_description_not_empty"),
    Index("idx_events_incident_id", "incident_id"),
    Index("idx_events_type", "type"),
    Index("idx_events_actor", "actor"),
    Index("idx_events_occurred_at", "occurred_at"),
    gin("idx_events_metadata", "metadata"),
    Index("idx_events_incident_occurred", "incident_id", "occurred_at"),
)

signals = Table(
    "signals",
    metadata,
    uuid_key(),
    Column("source", String(255), nullable=False),
    Column("title", String(500), nullable=False),
    Column("description", Text),
    Column("severity", incident_severity, nullable=False),
    document("labels", nullable=True),
    document("annotations", nullable=True),
    document("payload", nullable=True),
    moment("received_at"),
    not_empty("source", name="signal_source_not_empty"),
    not_empty("title", name="signal_title_not_empty"),
    Index("idx_signals_source", "source"),
    Index("idx_signals_severity", "severity"),
    Index("idx_signals_received_at", "received_at"),
    gin("idx_signals_labels", "labels"),
    gin("idx_signals_annotations", "annotations"),
    gin("idx_signals_payload", "payload"),
    Index("idx_signals_source_received", "source", "received_at"),
)

incident_signals = Table(
    "incident_signals",
    metadata,
    reference("incident_id", to="incidents"),
    reference("signal_id", to="signals"),
    moment("attached_at"),
    PrimaryKeyConstraint("incident_id", "signal_id"),
    Index("idx_incident_signals_signal_id", "signal_id"),
    Index("idx_incident_signals_attached_at", "attached_at"),
)

schedules = Table(
    "schedules",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False),
    Column("description", Text),
    Column("team_id", String(255), nullable=False),
    Column("timezone", String(100), nullable=False, server_default=text("'UTC'::character varying")),
    document("config"),
    active(),
    moment("created_at"),
    moment("updated_at"),
    not_empty("name", name="schedule_name_not_empty"),
    not_empty("team_id", name="schedule_team_id_not_empty"),
    not_empty("timezone", name="schedule_timezone_not_empty"),
    Index("idx_schedules_team_id", "team_id"),
    where_active("idx_schedules_active"),
    gin("idx_schedules_config", "config"),
    Index("idx_schedules_team_active", "team_id", "active"),
)

schedule_shifts = Table(
    "schedule_shifts",
    metadata,
    uuid_key(),
    reference("schedule_id", to="schedules"),
    Column("user_id", String(255), nullable=False),
    Column("start_time", DateTime(timezone=True), nullable=False),
    Column("end_time", DateTime(timezone=True), nullable=False),
    moment("created_at"),
    not_empty("user_id", name="shift_user_id_not_empty"),
    CheckConstraint("start_time < end_time", name="shift_time_order"),
    Index("idx_schedule_shifts_schedule_id", "schedule_id"),
    Index("idx_schedule_shifts_user_id", "user_id"),
    Index("idx_schedule_shifts_start_time", "start_time"),
    Index("idx_schedule_shifts_end_time", "end_time"),
    Index("idx_schedule_shifts_time_range", "start_time", "end_time"),
    Index("idx_schedule_shifts_user_time", "user_id", "start_time", "end_time"),
)

notification_rules = Table(
    "notification_rules",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False),
    Column("team_id", String(255), nullable=False),
    Column("severity", incident_severity, nullable=False),
    Column("channel_type", channel_type, nullable=False),
    document("channel_config"),
    delay(),
    active(),
    moment("created_at"),
    moment("updated_at"),
    not_empty("name", name="notification_rule_name_not_empty"),
    not_empty("team_id", name="notification_rule_team_id_not_empty"),
    CheckConstraint("delay_minutes >= 0", name="notification_rule_delay_positive"),
    Index("idx_notification_rules_team_id", "team_id"),
    Index("idx_notification_rules_severity", "severity"),
    Index("idx_notification_rules_channel_type", "channel_type"),
    where_active("idx_notification_rules_active"),
    gin("idx_notification_rules_config", "channel_config"),
    Index("idx_notification_rules_team_severity", "team_id", "severity"),
)

schedule_rotations = Table(
    "schedule_rotations",
    metadata,
    uuid_key(),
    reference("schedule_id", to="schedules"),
    Column("name", String(255), nullable=False),
    Column("rotation_type", String(50), nullable=False),
    document("rotation_config"),
    document("participants", default="[]"),
    Column("start_date", Date, nullable=False),
    Column("end_date", Date),
    active(),
    moment("created_at"),
    moment("updated_at"),
    not_empty("name", name="rotation_name_not_empty"),
    CheckConstraint("rotation_type IN ('daily', 'weekly', 'monthly')", name="rotation_type_valid"),
    CheckConstraint("end_date IS NULL OR start_date <= end_date", name="rotation_date_order"),
    Index("idx_schedule_rotations_schedule_id", "schedule_id"),
    Index("idx_schedule_rotations_type", "rotation_type"),
    Index("idx_schedule_rotations_dates", "start_date", "end_date"),
    where_active("idx_schedule_rotations_active"),
    gin("idx_schedule_rotations_config", "rotation_config"),
    gin("idx_schedule_rotations_participants", "participants"),
)

schedule_overrides = Table(
    "schedule_overrides",
    metadata,
    uuid_key(),
    reference("schedule_id", to="schedules"),
    Column("user_id", String(255), nullable=False),
    Column("override_user_id", String(255), nullable=False),
    Column("start_time", DateTime(timezone=True), nullable=False),
    Column("end_time", DateTime(timezone=True), nullable=False),
    Column("reason", String(500)),
    Column("created_by", String(255), nullable=False),
    moment("created_at"),
    not_empty("user_id", name="override_user_id_not_empty"),
    not_empty("override_user_id", name="override_override_user_id_not_empty"),
    not_empty("created_by", name="override_created_by_not_empty"),
    CheckConstraint("start_time < end_time", name="override_time_order"),
    Index("idx_schedule_overrides_schedule_id", "schedule_id"),
    Index("idx_schedule_overrides_user_id", "user_id"),
    Index("idx_schedule_overrides_override_user_id", "override_user_id"),
    Index("idx_schedule_overrides_time_range", "start_time", "end_time"),
    Index("idx_schedule_overrides_created_by", "created_by"),
)

escalation_policies = Table(
    "escalation_policies",
    metadata,
    uuid_key(),
    Column("name", String(255), nullable=False),
    Column("team_id", String(255), nullable=False),
    Column("description", Text),
    document("policy_config"),
    active(),
    moment("created_at"),
    moment("updated_at"),
    not_empty("name", name="escalation_policy_name_not_empty"),
    not_empty("team_id", name="escalation_policy_team_id_not_empty"),
    Index("idx_escalation_policies_team_id", "team_id"),
    where_active("idx_escalation_policies_active"),
    gin("idx_escalation_policies_config", "policy_config"),
)

escalation_steps = Table(
    "escalation_steps",
    metadata,
    uuid_key(),
    reference("policy_id", to="escalation_policies"),
    Column("step_order", Integer, nullable=False),
    Column("step_type", String(50), nullable=False),
    Column("target_id", String(255), nullable=False),
    delay(),
    document("step_config", nullable=True),
    UniqueConstraint("policy_id", "step_order"),
    CheckConstraint("step_order > 0", name="escalation_step_order_positive"),
    CheckConstraint("step_type IN ('user', 'schedule', 'webhook')", name="escalation_step_type_valid"),
    not_empty("target_id", name="escalation_target_id_not_empty"),
    CheckConstraint("delay_minutes >= 0", name="escalation_delay_positive"),
    Index("idx_escalation_steps_policy_id", "policy_id"),
    Index("idx_escalation_steps_order", "policy_id", "step_order"),
    Index("idx_escalation_steps_type", "step_type"),
    Index("idx_escalation_steps_target", "target_id"),
    gin("idx_escalation_steps_config", "step_config"),
)

audit_logs = Table(
    "audit_logs",
    metadata,
    uuid_key(),
    Column("entity_type", String(100), nullable=False),
    Column("entity_id", String(255), nullable=False),
    Column("action", String(100), nullable=False),
    Column("actor", String(255), nullable=False),
    document("changes", nullable=True),
    document("metadata", nullable=True),
    moment("occurred_at"),
    not_empty("entity_type", name="audit_entity_type_not_empty"),
    not_empty("entity_id", name="audit_entity_id_not_empty"),
    not_empty("action", name="audit_action_not_empty"),
    not_empty("actor", name="audit_actor_not_empty"),
    Index("idx_audit_logs_entity", "entity_type", "entity_id"),
    Index("idx_audit_logs_action", "action"),
    Index("idx_audit_logs_actor", "actor"),
    Index("idx_audit_logs_occurred_at", "occurred_at"),
    gin("idx_audit_logs_changes", "changes"),
    gin("idx_audit_logs_metadata", "metadata"),
    Index("idx_audit_logs_entity_occurred", "entity_type", "entity_id", "occurred_at"),
)

team_preferences = Table(
    "team_preferences",
    metadata,
    uuid_key(),
    Column("team_id", String(255), nullable=False),
    document("preferences"),
    moment("created_at"),
    moment("updated_at"),
    UniqueConstraint("team_id"),
    not_empty("team_id", name="team_preferences_team_id_not_empty"),
    Index("idx_team_preferences_team_id", "team_id"),
    gin("idx_team_preferences_prefs", "preferences"),
)

# The extensions, for which SQLAlchemy has no objects, and the function and triggers.

BEFORE_TABLES = (
    # An existing function is kept, whether the extension's or the stand-in below.
    """
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
    """,
    """
    DO $$
    BEGIN
        CREATE EXTENSION IF NOT EXISTS btree_gin;
    EXCEPTION
        WHEN feature_not_supported OR undefined_file OR insufficient_privilege THEN
            RAISE NOTICE USING MESSAGE = 'btree_gin is not used: ' || SQLERRM;
    END
    $$
    """,
    # Where the extension is not available, a function of the same name stands in for it.
    """
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
    """,
)

for _statement in BEFORE_TABLES:
    event.listen(metadata, "before_create", DDL(_statement))  # type: ignore[no-untyped-call]

set_updated_at = function(
    metadata,
    "update_updated_at_column()",
    returns="trigger",
    body="""
BEGIN
    NEW.updated_at = NOW();
    RETURN NEW;
END;
""",
)

for _table in (
    incidents,
    schedules,
    notification_rules,
    schedule_rotations,
    escalation_policies,
    team_preferences,
):
    trigger(f"update_{_table.name}_updated_at", _table, "BEFORE UPDATE", set_updated_at)
