"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision or "nothing"}
"""

from __future__ import annotations

from alembic import op
${imports if imports else ""}
revision: str = "${up_revision}"
down_revision: str | None = ${f'"{down_revision}"' if down_revision else None}


def upgrade() -> None:
    ${upgrades if upgrades else 'op.execute("""\n        -- TODO: the change, as one idempotent statement\n    """)'}


def downgrade() -> None:
    ${downgrades if downgrades else 'op.execute("""\n        -- TODO: the way back, as one idempotent statement\n    """)'}
