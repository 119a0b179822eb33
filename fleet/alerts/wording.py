"""A message in the form of each kind of channel. What devices said is in it: no line breaks, no markup of theirs.

I/O: none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.clock import rfc3339

_WORDS: Final = {
    "opened": "",
    "worsened": "worse: ",
    "escalated": "escalated, nobody looks after it: ",
    "resolved": "resolved: ",
}
_SHOWN: Final = 20  # alerts in the text of one message; the JSON has all
_MAX_HEADING: Final = 150
_SLACK_SECTION: Final = 3000
TEST: Final = "test"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: `document` for programs, heading and lines for people."""

    id: str
    heading: str
    lines: tuple[str, ...]
    document: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The lines, one below the other."""
        return "\n".join(self.lines)

    def json(self) -> bytes:
        """The body of a webhook. The same message gives the same bytes."""
        return json.dumps(self.document, separators=(",", ":")).encode()


def message(name: str, purpose: str, body: Mapping[str, Any], *, group: str, at: datetime, manager: str) -> Message:
    """The message of a delivery."""
    head = {"id": name, "at": rfc3339(at), "manager": manager}
    if purpose == "retraining":
        return _retraining(head, body)
    if purpose == TEST:
        said = "A test message of Flotilla. Nothing is wrong."
        return Message(name, said, (said, manager), {"type": "flotilla-test/1", **head, "text": said})
    items = body.get("items", [])
    document = {"type": "flotilla-alerts/1", **head, "group": group, "alerts": items, "more": body.get("more", 0)}
    return Message(name, _heading(items, body.get("more", 0)), _lines(items, body, manager), document)


def _retraining(head: Mapping[str, Any], body: Mapping[str, Any]) -> Message:
    release = f"{body['model']} {body.get('version') or ''}".strip()
    document = {"type": "flotilla-retraining-request/1", **head, **body}
    window = body.get("window") or {}
    lines = (
        f"{release} should be trained anew: {_plain(body.get('text', ''))}",
        f"window: {window.get('from')} to {window.get('to')}",
        f"features: {', '.join(map(str, body.get('features', []))) or 'not named'}",
        "evidence: " + ", ".join(f"{key} {value:g}" for key, value in body.get("evidence", {}).items()),
        f"alert {body['alert']}, {head['manager']}",
    )
    return Message(str(head["id"]), _plain(f"Retraining of {release} requested")[:_MAX_HEADING], lines, document)


def _heading(items: Sequence[Mapping[str, Any]], more: int) -> str:
    if len(items) == 1 and not more:
        return _plain(f"[{items[0]['severity']}] {_sentence(items[0])}")[:_MAX_HEADING]
    gravest = next(
        (word for word in ("critical", "high", "medium", "low") if word in {one["severity"] for one in items}), "low"
    )
    kinds = sorted({one["kind"] for one in items})
    return f"[{gravest}] {len(items) + more} alerts: {', '.join(kinds)}"[:_MAX_HEADING]


def _lines(items: Sequence[Mapping[str, Any]], body: Mapping[str, Any], manager: str) -> tuple[str, ...]:
    lines = [f"{one['alert']} [{one['severity']}] {_sentence(one)}" for one in items[:_SHOWN]]
    hidden = len(items) - len(lines) + body.get("more", 0)
    if hidden:
        lines.append(f"and {hidden} more: flotilla alert list")
    waiting = [one["alert"] for one in items if one["event"] != "resolved"]
    if waiting:
        lines.append(f"Next: flotilla alert ack {waiting[0]}")
    return (*lines, manager)


def _sentence(item: Mapping[str, Any]) -> str:
    where = f" (site {item['site']})" if item.get("site") else ""
    return _plain(f"{_WORDS.get(item['event'], '')}{item['text']}{where}")


def _plain(text: str) -> str:
    """One line without control characters: it goes into headers and chats."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def slack(said: Message) -> dict[str, Any]:
    """The form of Slack's incoming webhooks; `<`, `>` and `&` are its markup."""
    return {
        "text": _escaped(said.heading),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": said.heading}},
            {"type": "section", "text": {"type": "mrkdwn", "text": _escaped(said.text)[:_SLACK_SECTION]}},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams(said: Message) -> dict[str, Any]:
    """The form of Teams' workflows: one adaptive card."""
    blocks = [{"type": "TextBlock", "text": _unmarked(said.heading), "weight": "Bolder", "wrap": True}]
    blocks += [{"type": "TextBlock", "text": _unmarked(line), "wrap": True} for line in said.lines]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _unmarked(text: str) -> str:
    """Without links and emphasis: cards read a little Markdown."""
    return "".join(f"\\{sign}" if sign in "\\`*[]" else sign for sign in text)
