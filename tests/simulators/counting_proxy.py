"""A way to the manager's HTTP that counts the bytes of chunks which pass, and can fall silent at a moment that a test
chooses."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx2


class CountingProxy:
    """Runs on loopback between `with` and its end."""

    def __init__(self, manager_url: str, *, cut_after: Callable[[str], bool] = lambda _: False) -> None:
        """`cut_after` is asked for each path that was answered; from the first True on nobody is answered."""
        self._manager, self._cut_after = manager_url, cut_after
        self.cut = False
        self.chunk_bytes = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy._pass(self)

            def do_POST(self) -> None:
                proxy._pass(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = httpx2.Client(trust_env=False, timeout=30)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._http.close()

    def _pass(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        if self.cut:
            return
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        passed = {name: value for name, value in request.headers.items() if name.lower() in {"range", "content-type"}}
        answer = self._http.request(request.command, self._manager + request.path, content=body, headers=passed)
        if request.path.startswith("/chunks/"):
            with self._lock:
                self.chunk_bytes += len(answer.content)
        request.send_response(answer.status_code)
        for name in ("content-type", "content-range"):
            if name in answer.headers:
                request.send_header(name, answer.headers[name])
        request.send_header("Content-Length", str(len(answer.content)))
        request.end_headers()
        request.wfile.write(answer.content)
        self.cut = self.cut or self._cut_after(request.path)
