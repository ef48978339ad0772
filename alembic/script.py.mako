<%!
def written(code):
    """What Alembic has found to do; where that is nothing, it says so in comments around a pass."""
    return code if code and "pass" not in code.split() else ""
%>\
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
    ${written(upgrades) or 'op.execute("""\n        -- TODO: the change, as one idempotent statement\n    """)'}


def downgrade() -> None:
    ${written(downgrades) or 'op.execute("""\n        -- TODO: the way back, as one idempotent statement\n    """)'}
