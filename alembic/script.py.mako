<%!
UP = 'op.execute("""\n        -- TODO: the change, as one idempotent statement\n    """)'
BACK = 'op.execute("""\n        -- TODO: the way back, as one idempotent statement\n    """)'
%>\
"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision or "nothing"}
"""

from __future__ import annotations

from alembic import op
${imports + "\n" if imports else ""}
revision: str = "${up_revision}"
down_revision: str | None = ${f'"{down_revision}"' if down_revision else None}


def upgrade() -> None:
    ${context.get("upgrade_code", UP).strip()}


def downgrade() -> None:
    ${context.get("downgrade_code", BACK).strip()}
