"""Any list of the API as CSV: `Accept: text/csv` turns {"items": [...]} into lines; `Link` names the next page.

I/O: none.
"""

import json
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fleet.api import spreadsheet
from fleet.api.asgi import App, Message, Receive, Scope, Send

_PREFIX: Final = "/api/v1/"


class CsvAnswers:
    """A layer around the routes."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_PREFIX)
        headers = dict(scope.get("headers", ()))
        if not wanted or b"text/csv" not in headers.get(b"accept", b""):
            await self._app(scope, receive, send)
            return
        answer = _Held(scope, send)
        await self._app(scope, receive, answer)
        await answer.release()


class _Held:
    """Holds an answer back until it is whole."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._start: Message = {}
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")

    async def release(self) -> None:
        body = bytes(self._body)
        headers = dict(self._start["headers"])
        if self._start["status"] == 200 and headers.get(b"content-type", b"").startswith(b"application/json"):
            document = json.loads(body)
            if isinstance(document, dict) and "items" in document:
                body = spreadsheet.write(document["items"]).encode()
                headers[b"content-type"] = b"text/csv; charset=utf-8"
                name = self._scope["path"].rsplit("/", 1)[-1]
                headers[b"content-disposition"] = f'attachment; filename="{name}.csv"'.encode()
                if document.get("next_cursor"):
                    headers[b"link"] = f'<{self._next(document["next_cursor"])}>; rel="next"'.encode()
        headers[b"content-length"] = str(len(body)).encode()
        await self._send({**self._start, "headers": list(headers.items())})
        await self._send({"type": "http.response.body", "body": body})

    def _next(self, cursor: str) -> str:
        query = dict(parse_qsl(self._scope.get("query_string", b"").decode("latin-1")))
        return f"{self._scope['path']}?{urlencode({**query, 'cursor': cursor})}"
