"""Who may end another session: the same role, a member of it or of pg_signal_backend, or a superuser.

A superuser's session is ended by a superuser alone, and so is one without a role (PostgreSQL documentation,
"Server Signaling Functions"). A run may have logged in as another role than the one that it acts as.
"""

from __future__ import annotations

FIRST = "signaling.first"
"""What stands before the statement that ends a session: nothing, ``SET ROLE``, or whom to ask to run it."""

JOINS = """
    LEFT JOIN pg_catalog.pg_roles AS signaled ON signaled.oid = a.usesysid
    CROSS JOIN LATERAL (
        SELECT CASE WHEN a.pid IS NULL OR bool_or(may) FILTER (WHERE name = session_user) THEN ''
                    WHEN bool_or(may) THEN concat('SET ROLE ', quote_ident(current_user), '; ')
                    WHEN signaled.rolsuper IS NOT FALSE THEN 'Ask a superuser to run: '
                    ELSE concat('Ask role ', quote_ident(signaled.rolname),
                                ', or a member of pg_signal_backend, to run: ')
               END AS first
        FROM (
            SELECT rolname AS name,
                   rolsuper OR (signaled.rolsuper IS FALSE
                                AND (pg_has_role(oid, signaled.oid, 'USAGE')
                                     OR pg_has_role(oid, 'pg_signal_backend', 'USAGE'))) AS may
            FROM pg_catalog.pg_roles
            WHERE rolname IN (session_user, current_user)
        ) AS ours
    ) AS signaling
"""
"""Joins that :data:`FIRST` needs after ``pg_stat_activity AS a``, which may have no row."""
