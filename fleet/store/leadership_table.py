"""The table of who leads; `tables` has it as well.

I/O: none.
"""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.columns import Base


class Leadership(Base):
    """The one row that says which of several managers leads, and until when by the clock of the database."""

    __tablename__ = "leadership"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    term: Mapped[int]  # grows with each leader: who holds an older one may write nothing more
    holder: Mapped[str] = mapped_column(String(128))
    url: Mapped[str] = mapped_column(Text)
    keys: Mapped[str] = mapped_column(String(64))  # a keyed hash of the manager's keys: all managers have the same
    expires_at: Mapped[datetime]
