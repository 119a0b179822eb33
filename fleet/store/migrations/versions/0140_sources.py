"""From where the bytes of a download came.

I/O: disk.
"""

import sqlalchemy as sa
from alembic import op

revision = "0140"
down_revision = "0135"


def upgrade() -> None:
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sources", sa.JSON(), nullable=True))
