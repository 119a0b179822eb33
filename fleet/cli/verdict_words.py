"""Verdicts of a rollout's gate in words: what it said, by which number, against which limit.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.cli.rollout_words import MARKS

Document = Mapping[str, Any]


def page(rows: Sequence[Document]) -> str:
    """The newest in full, of the others what changed."""
    if not rows:
        return "The gate has not said anything yet: it begins with the first wave."
    newest = rows[0]
    lines = [f"{_moment(newest)}  wave {newest['numbers']['wave'] + 1}  {newest['result']}", ""]
    lines += [line for check in newest["checks"] for line in _check(check)]
    if len(rows) > 1:
        lines += ["", "Before:"]
        lines += [f"   {_moment(row)}  {row['result']:<5} {_short(row)}" for row in rows[1:]]
    return "\n".join(lines)


def _check(check: Document) -> list[str]:
    words = (("value", ""), ("limit", "limit "), ("reference", "reference "))
    said = ", ".join(f"{word}{_amount(check[key], check['unit'])}" for key, word in words if check[key] is not None)
    if check["e_value"] is not None:
        said += f"; E {_figure(check['e_value'])} of {_figure(check['e_limit'])}, p {_figure(check['p'])}"
    lines = [f"{MARKS[check['result']]}  {check['name']:<23} {said}".rstrip()]
    return [*lines, f"     {check['detail']}"] if check["detail"] else lines


def _short(row: Document) -> str:
    """What did not pass; or that all did."""
    others = [f"{check['name']}: {check['detail']}" for check in row["checks"] if check["result"] == "fail"]
    waits = [check["name"] for check in row["checks"] if check["result"] == "wait"]
    return "; ".join(others) or (f"waits for {', '.join(waits)}" if waits else "every gate passes")


def _moment(row: Document) -> str:
    return str(row["at"])[:19].replace("T", " ") + "Z"


def _amount(value: float, unit: str) -> str:
    """As `rollout show` and the dashboard write it, with one more digit."""
    match unit:
        case "ratio":
            return f"{value * 100:.4g} %"
        case "ms":
            return f"{value:.4g} ms" if value < 1000 else f"{value:.0f} ms"
        case "count":
            return f"{value:g}"
        case "psi":
            return f"{value:.3f}"
        case _:
            return f"{_figure(value)} {unit}"


def _figure(value: float) -> str:
    return f"{value:.3g}"
