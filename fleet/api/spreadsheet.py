"""A list as CSV, for `Accept: text/csv`.

I/O: none.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: A cell that begins like this is taken for a formula by spreadsheets.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def write(items: Sequence[Mapping[str, Any]]) -> str:
    """One line for each item; columns are the keys in the order in which they first appear."""
    columns = list(dict.fromkeys(key for item in items for key in item))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(item.get(column)) for column in columns] for item in items)
    return text.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return value
        case str():
            return f"'{value}" if value.startswith(_FORMULA) else value
        case _:
            return json.dumps(value, sort_keys=True)
