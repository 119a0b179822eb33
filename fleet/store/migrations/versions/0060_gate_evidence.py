"""What the gate of a rollout compares with, how far it is, what it said, and what a webhook said.

I/O: disk.
"""

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0030"


def upgrade() -> None:
    rollout = sa.ForeignKey("rollouts.id")
    op.create_table(
        "habits",
        sa.Column("rollout_id", sa.String(16), rollout, primary_key=True),
        sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("hardware", sa.String(64), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("slow_above", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.Double(), nullable=False)
            for name in (
                "error_rate", "slow_rate", "crash_rate", "wrong_rate",
                "error_squares", "error_expected", "slow_squares", "slow_expected", "wrong_expected",
            )
        ),
        sa.Column("excluded", sa.Boolean(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("silent", sa.Boolean(), nullable=False),
    )  # fmt: skip
    op.create_table(
        "trials",
        sa.Column("rollout_id", sa.String(16), sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("usual_failures", sa.Double()),
        sa.Column("accuracy", sa.Double()),
    )
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("rollout_id", sa.String(16), sa.ForeignKey("rollouts.id"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.String(8), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
    )
    op.create_index("ix_verdicts_at", "verdicts", ["at"])
    op.create_index("verdicts_by_rollout", "verdicts", ["rollout_id", "id"])
    op.create_table(
        "hooks",
        sa.Column("rollout_id", sa.String(16), sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    )
