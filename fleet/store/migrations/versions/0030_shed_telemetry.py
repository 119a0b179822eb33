"""How much telemetry a device threw away, told with each window.

I/O: disk.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0020"


def upgrade() -> None:
    with op.batch_alter_table("streams", schema=None) as batch_op:
        batch_op.add_column(sa.Column("shed", sa.Integer(), nullable=False, server_default="0"))
