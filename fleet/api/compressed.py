"""Pages and their files, compressed for browsers that take it.

Only what shows nothing of what the request said: else the length of an answer that also holds the page's CSRF token
could be used to guess it (BREACH). Chunks are as short as they can be, streams leave at once.

I/O: none.
"""

from typing import Final

from starlette.middleware.gzip import GZipMiddleware

from fleet.api.asgi import App, Receive, Scope, Send

_PAGES: Final = frozenset({"/fleet", "/rollouts"})
_FILES: Final = "/static/"
_LEVEL: Final = 6


class Compressed:
    """A layer around the routes."""

    def __init__(self, app: App) -> None:
        self._plain, self._gzip = app, GZipMiddleware(app, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fit = scope["type"] == "http" and (scope["path"] in _PAGES or scope["path"].startswith(_FILES))
        await (self._gzip if fit else self._plain)(scope, receive, send)
