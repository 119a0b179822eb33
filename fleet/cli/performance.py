"""How well and how fast releases answer, in words: for `flotilla drift show` and `flotilla model show`.

I/O: none.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleet.cli.wording import ago

Row = Mapping[str, Any]
_MARKS: Final = {"worse": "✖", "watch": "▲", "ok": "✔"}


def lines(standings: Sequence[Row], now: datetime) -> Iterator[str]:
    """A heading with the age for each release and scope, and a line for each figure."""
    for standing in standings:
        yield f"performance of {standing['version']} on {standing['scope']}, as of {ago(standing['as_of'], now)}:"
        yield from figures(standing["figures"])


def figures(rows: Sequence[Row]) -> Iterator[str]:
    """`  ✔ accuracy   93.2 % (91.0 to 95.0 %)  it was 95.0 % at publish: nothing to do.`"""
    for row in rows:
        estimate = " (estimate)" if row["estimate"] else ""
        within = f" ({_written(row, 'low')} to {_written(row, 'high')})" if row["low"] is not None else ""
        name = f"{row['metric']}{estimate}"
        yield f"  {_MARKS.get(row['state'], '…')} {name:<10} {_written(row, 'value')}{within}  {row['text']}"


def _written(row: Row, key: str) -> str:
    value = row[key]
    if value is None:
        return "–"
    return f"{value:.1f} ms" if row["metric"] == "latency" else f"{100 * value:.1f} %"
