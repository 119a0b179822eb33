"""Bytes of a download beyond 2 GiB; SQLite's integers hold them already.

I/O: disk.
"""

import sqlalchemy as sa
from alembic import op

revision = "0135"
down_revision = "0130"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for column in ("fetched_bytes", "total_bytes"):
        op.alter_column(
            "deployments", column, existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=True
        )
