"""Alembic's entry: run the migrations on the connection that `database.py` hands over.

I/O: disk.
"""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from fleet.store import bad_pairs  # noqa: F401  # brings its table
from fleet.store.tables import Base, UtcDateTime


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """New migrations say `sa.DateTime(timezone=True)` and do not depend on our Python types."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=render_item,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
