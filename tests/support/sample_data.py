"""A few valid rows for every table."""

from __future__ import annotations

from typing import Any

from tests.support.facts import BOOKKEEPING

VERSION_1 = (
    """
    INSERT INTO incidents
        (id, title, description, status, severity, team_id, assignee_id, service_id, labels, resolved_at)
    VALUES
        ('00000000-0000-4000-8000-000000000001', 'Checkout is down', 'All payments fail', 'triggered',
         'critical', 'payments', NULL, 'checkout', '{"region": "eu", "tier": 1}', NULL),
        ('00000000-0000-4000-8000-000000000002', 'Suche langsam – Größe 3×', NULL, 'acknowledged',
         'medium', 'search', 'ada', NULL, NULL, NULL),
        ('00000000-0000-4000-8000-000000000003', 'Disk full', NULL, 'resolved',
         'high', 'storage', 'grace', 'files', '{}', '2026-01-02 03:04:05+00')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO events (id, incident_id, type, actor, description, metadata)
    VALUES
        ('00000000-0000-4000-8000-000000000101', '00000000-0000-4000-8000-000000000001', 'triggered',
         'monitoring', 'Opened by a signal', '{"signals": [1, 2]}'),
        ('00000000-0000-4000-8000-000000000102', '00000000-0000-4000-8000-000000000003', 'resolved',
         'grace', 'Old files removed', NULL)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO signals (id, source, title, description, severity, labels, annotations, payload)
    VALUES
        ('00000000-0000-4000-8000-000000000201', 'prometheus', 'HighErrorRate', '5xx above 10 percent',
         'critical', '{"job": "checkout"}', '{"runbook": "r1"}', '{"value": 0.31}'),
        ('00000000-0000-4000-8000-000000000202', 'cron', 'DiskFull', NULL, 'high', NULL, NULL, NULL)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO incident_signals (incident_id, signal_id)
    VALUES
        ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000201'),
        ('00000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-000000000202')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO schedules (id, name, description, team_id, timezone, config, active)
    VALUES
        ('00000000-0000-4000-8000-000000000301', 'Primary', 'Day and night', 'payments', 'Europe/Berlin',
         '{"layers": 2}', true),
        ('00000000-0000-4000-8000-000000000302', 'Old', NULL, 'search', 'UTC', '{}', false)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO schedule_shifts (id, schedule_id, user_id, start_time, end_time)
    VALUES
        ('00000000-0000-4000-8000-000000000401', '00000000-0000-4000-8000-000000000301', 'ada',
         '2026-01-01 00:00+00', '2026-01-08 00:00+00'),
        ('00000000-0000-4000-8000-000000000402', '00000000-0000-4000-8000-000000000301', 'grace',
         '2026-01-08 00:00+00', '2026-01-15 00:00+00')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO notification_rules
        (id, name, team_id, severity, channel_type, channel_config, delay_minutes, active)
    VALUES
        ('00000000-0000-4000-8000-000000000501', 'Page at once', 'payments', 'critical', 'pagerduty',
         '{"key": "k"}', 0, true),
        ('00000000-0000-4000-8000-000000000502', 'Mail later', 'search', 'low', 'email', '{}', 30, false)
    ON CONFLICT DO NOTHING
    """,
)

VERSION_2 = (
    """
    INSERT INTO escalation_policies (id, name, team_id, description, policy_config, active)
    VALUES
        ('00000000-0000-4000-8000-000000000601', 'Payments', 'payments', 'Ada, then all', '{"repeat": 3}',
         true),
        ('00000000-0000-4000-8000-000000000602', 'Nobody', 'search', NULL, '{}', false)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO escalation_steps
        (id, policy_id, step_order, step_type, target_id, delay_minutes, step_config)
    VALUES
        ('00000000-0000-4000-8000-000000000701', '00000000-0000-4000-8000-000000000601', 1, 'user', 'ada',
         0, NULL),
        ('00000000-0000-4000-8000-000000000702', '00000000-0000-4000-8000-000000000601', 2, 'schedule',
         '00000000-0000-4000-8000-000000000301', 15, '{"notify": "all"}')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO audit_logs (id, entity_type, entity_id, action, actor, changes, metadata)
    VALUES
        ('00000000-0000-4000-8000-000000000801', 'incident', '00000000-0000-4000-8000-000000000001',
         'update', 'ada', '{"status": ["triggered", "acknowledged"]}', '{"ip": "192.0.2.1"}'),
        ('00000000-0000-4000-8000-000000000802', 'team', 'payments', 'create', 'grace', NULL, NULL)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO team_preferences (id, team_id, preferences)
    VALUES
        ('00000000-0000-4000-8000-000000000901', 'payments', '{"color": "red"}'),
        ('00000000-0000-4000-8000-000000000902', 'search', '{}')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO schedule_rotations
        (id, schedule_id, name, rotation_type, rotation_config, participants, start_date, end_date, active)
    VALUES
        ('00000000-0000-4000-8000-000000001001', '00000000-0000-4000-8000-000000000301', 'Weekly',
         'weekly', '{"handover": "09:00"}', '["ada", "grace"]', '2026-01-01', '2026-12-31', true),
        ('00000000-0000-4000-8000-000000001002', '00000000-0000-4000-8000-000000000302', 'Daily',
         'daily', '{}', '[]', '2026-01-01', NULL, false)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO schedule_overrides
        (id, schedule_id, user_id, override_user_id, start_time, end_time, reason, created_by)
    VALUES
        ('00000000-0000-4000-8000-000000001101', '00000000-0000-4000-8000-000000000301', 'ada', 'grace',
         '2026-01-03 00:00+00', '2026-01-04 00:00+00', 'Dentist', 'ada'),
        ('00000000-0000-4000-8000-000000001102', '00000000-0000-4000-8000-000000000301', 'grace', 'ada',
         '2026-01-09 00:00+00', '2026-01-10 00:00+00', NULL, 'grace')
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO incidents (id, title, severity, team_id, escalation_policy_id)
    VALUES
        ('00000000-0000-4000-8000-000000000004', 'Card reader is offline', 'low', 'payments',
         '00000000-0000-4000-8000-000000000601')
    ON CONFLICT DO NOTHING
    """,
)


def fill(database: Any) -> None:
    """Insert rows into every table that the database has; rows that are there already are left alone."""
    for statement in VERSION_1:
        database.execute(statement)
    ((has_version_2,),) = database.execute("SELECT to_regclass('public.escalation_policies') IS NOT NULL")
    if has_version_2:
        for statement in VERSION_2:
            database.execute(statement)


def swell(database: Any) -> None:
    """Give ``incidents`` ten blocks without a live row, so that an index on it is built in an online step.

    Fewer rows are dead than autovacuum comes for.
    """
    database.execute(
        """
        INSERT INTO incidents (title, description, status, severity, team_id)
        SELECT 'to be deleted', repeat('x', 1850), 'triggered', 'low', 'nobody' FROM generate_series(1, 40);
        DELETE FROM incidents;
        """
    )


def contents(database: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table, each as a dictionary, always in the same order."""
    tables = database.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return {
        table: [
            row for (row,) in database.execute(f'SELECT to_jsonb(t) FROM public."{table}" t ORDER BY t::text')
        ]
        for (table,) in tables
        if table not in BOOKKEEPING
    }
