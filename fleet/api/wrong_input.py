"""What is wrong with a request, in words: pydantic's findings without its own vocabulary.

I/O: none.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

MOST: Final = 20
#: Steps of a place that name a type of ours and no field: `literal['settings']`, `function-after[_some(), Hours]`.
_TYPE: Final = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)
_WORDS: Final = (
    ("Extra inputs are not permitted", "there is no such field"),
    ("Field required", "is missing"),
    ("Value error, ", ""),
    ("Input should be", "must be"),
    ("String should match pattern", "must have the form"),
    ("String should have", "must have"),
    ("List should have", "must have"),
)


def explained(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`pointer` and `detail` of each finding; the values themselves are not repeated.

    Where a field may have several forms, findings inside of one form say more than that another form was not meant.
    """
    found = list(findings)
    told = {_chosen(one) for one in found if one["type"] != "literal_error"} - {None}
    kept = [one for one in found if one["type"] != "literal_error" or _chosen(one) not in told]
    return [{"pointer": _pointer(one["loc"]), "detail": _words(one)} for one in kept[:MOST]]


def named(finding: Mapping[str, str]) -> str:
    """One finding as a sentence: `window/start: must have the form ...`."""
    field = finding["pointer"].removeprefix("/").partition("/")[2]
    return f"{field}: {finding['detail']}" if field else finding["detail"]


def _chosen(finding: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The field that may have several forms, where the finding lies in one of them."""
    steps = [str(step) for step in finding["loc"]]
    forms = [place for place, step in enumerate(steps) if _TYPE.fullmatch(step)]
    return tuple(steps[: forms[0]]) if forms else None


def _fields(place: Iterable[Any]) -> list[str]:
    return [str(step) for step in place if not _TYPE.fullmatch(str(step))]


def _pointer(place: Iterable[Any]) -> str:
    return "/" + "/".join(step.replace("~", "~0").replace("/", "~1")[:80] for step in _fields(place))


def _words(finding: Mapping[str, Any]) -> str:
    if str(finding["type"]).startswith("datetime"):
        return "must be a time such as 2026-12-01T02:00:00Z"
    text = str(finding["msg"])
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    return text
