"""What the daemon tells about itself -> text for a terminal. `--json` shows the same documents whole.

I/O: none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Document = Mapping[str, Any]

_HEAD: Final = ("MODEL", "SLOT", "VERSION", "STATE", "SINCE", "PROVIDER", "MEMORY")
_MIB: Final = 1024 * 1024


def slots(document: Document) -> str:
    """Both slots of each model, and below them what serves and why."""
    models: Sequence[Document] = document["models"]
    if not models:
        return "no model has arrived yet"
    rows = [_HEAD, *(row for model in models for row in _rows(model))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*table, "", *(line for model in models for line in about(model))])


def status(document: Document) -> str:
    """The agent as a whole, then each model."""
    link = "connected" if document["connected"] else f"not connected: {document['link_failure']}"
    rows = {
        "device": f"{document['device']} ({document['hardware']}, agent {document['agent_version']})",
        "manager": document["manager"],
        "broker": link,
        "endpoint": document["http"],
        "to send": ", ".join(f"{line['waiting']} {kind}" for kind, line in document["outbox"].items()),
    }
    models = [line for model in document["models"] for line in about(model)] or ["no model yet"]
    return "\n".join([*(f"{name:<8} {value}" for name, value in rows.items()), *models])


def installed(document: Document) -> str:
    """What became of each release of a bundle."""
    words = {
        "seen-before": "had been followed before; nothing changed",
        "prepared": "verified and copied; the next start of the agent installs it",
        "waits": "waits for the one before: repeat the command when the agent runs",
    }
    return "\n".join(
        f"{one['model']}@{one['version']}: {words.get(one['outcome'], one['outcome'])}" for one in document["releases"]
    )


def about(model: Document) -> Iterator[str]:
    """What serves one model and why, line by line."""
    serving = model["serving"]
    yield f"{model['model']}: {f'serves {serving}, ' if serving else ''}{model['why']}"
    if (trouble := model["trouble"]) is not None:
        kind = "safe mode" if trouble["safe_mode"] else "trouble"
        yield f"  {kind} since {_time(trouble['since'])}: {trouble['detail']} ({trouble['code']})"
    if (update := model["update"]) is not None:
        yield f"  update to {update['version']}: {update['state']}{_waiting(update['waiting'])}"
        if update["shadow_words"]:
            yield f"  in the shadow: {update['shadow_words']}"
    if (end := model["last_end"]) is not None:
        why = f": {end['detail']} ({end['reason']})" if end["reason"] else ""
        yield f"  last update: {end['version']} {end['phase']} at {_time(end['at'])}{why}"


def _waiting(waiting: Document | None) -> str:
    return f", waiting since {_time(waiting['since'])}: {waiting['detail']} ({waiting['code']})" if waiting else ""


def _rows(model: Document) -> Iterator[tuple[str, ...]]:
    for name, slot in sorted(model["slots"].items()):
        mark = " *" if slot["version"] and slot["version"] == model["serving"] else ""
        yield (
            model["model"] if name == "a" else "",
            f"{name}{mark}",
            slot["version"] or "-",
            slot["state"] + (" (last good)" if model["last_good"] == name else ""),
            _time(slot["since"]),
            (slot["provider"] or "-").removesuffix("ExecutionProvider"),
            _memory(slot),
        )


def _memory(slot: Document) -> str:
    if slot["peak_bytes"] is None or slot["resident_bytes"] is None:
        return "-"
    return f"{slot['resident_bytes'] / _MIB:.0f} MiB, {slot['peak_bytes'] / _MIB:.0f} MiB while loading"


def _time(text: str | None) -> str:
    """`2026-11-23 16:04:05Z`: as the device's clock had it, UTC."""
    return f"{text[:10]} {text[11:19]}Z" if text else "-"
