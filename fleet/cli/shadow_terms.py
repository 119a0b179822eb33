"""The terms of a shadow as people type them: `10%`, or `share=10%,samples=500,agreement=97%,time=1h,stay`.

I/O: none.
"""

from collections.abc import Callable, Mapping
from typing import Final

from fleet.cli.errors import CliError, Exit
from fleet.cli.wording import duration

Value = float | int | str | bool


def _share(text: str) -> float:
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _seconds(text: str) -> float:
    return duration(text).total_seconds()


#: Word -> field of the API, and how its value is read.
_WORDS: Final[Mapping[str, tuple[str, Callable[[str], Value]]]] = {
    "share": ("share", _share),
    "samples": ("min_samples", int),
    "agreement": ("min_agreement", _share),
    "latency": ("max_latency_ratio", float),
    "errors": ("max_error_ratio", _share),
    "time": ("seconds", _seconds),
    "few": ("when_few", str),
    "memory": ("memory_bytes", int),
    "load": ("max_cpu_ratio", _share),
}


def read(text: str) -> dict[str, Value]:
    """Fields of `shadow` of the API. Whether values are allowed, the manager says.

    Raises:
        CliError: a word that is none, or a value that cannot be read.
    """
    found: dict[str, Value] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        word, equals, value = part.partition("=")
        if part == "stay":
            found["stay"] = True
            continue
        if not equals:
            word, value = "share", part
        if word not in _WORDS:
            raise _refused(f"{part!r} is no term of a shadow", f"known are {', '.join(_WORDS)}, stay")
        field, convert = _WORDS[word]
        try:
            found[field] = convert(value)
        except ValueError:
            raise _refused(
                f"{word} of a shadow cannot be {value!r}", "such as share=10%,samples=200,time=10m"
            ) from None
    return found


def _refused(detail: str, remedy: str) -> CliError:
    return CliError("E_USAGE", detail, "", remedy, Exit.USAGE)
