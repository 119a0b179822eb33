"""Who failed lately is found without reading every window.

I/O: disk.
"""

import sqlalchemy as sa
from alembic import op

revision = "0150"
down_revision = "0140"


def upgrade() -> None:
    failed = sa.text("failed > 0")
    op.create_index(
        "windows_with_failures",
        "windows",
        ["received_at", "device_id"],
        sqlite_where=failed,
        postgresql_where=failed,
    )
