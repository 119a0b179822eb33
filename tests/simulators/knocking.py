"""Clients that knock at doors without pause, each time by a new connection, and what became of each.

    python -m tests.simulators.knocking REQUEST DOOR...     until stdin is closed; then one JSON list on stdout

A door is "host:port" or the path of a Unix socket; REQUEST a file with the bytes of one HTTP request that closes the
connection. An entry is [door, began, ended, outcome]: times of time.monotonic, which all processes share; "refused",
"cut" (connected, but no whole answer) or the status.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path

PAUSE_SECONDS = 0.01
TIMEOUT_SECONDS = 20.0
_CLIENTS = 2  # for each door


def knock(door: str, request: bytes) -> str:
    """One connection, one request."""
    is_unix = door.startswith("/")
    client = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
    client.settimeout(TIMEOUT_SECONDS)
    with client:
        try:
            host, _, port = door.rpartition(":")
            client.connect(door if is_unix else (host, int(port)))
        except OSError as error:
            return f"refused: {error}"
        try:
            client.sendall(request)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        except OSError as error:
            return f"cut: {error}"
    return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1.1 ") else "cut: no answer"


def main() -> None:
    request, doors = Path(sys.argv[1]).read_bytes(), sys.argv[2:]
    seen: list[tuple[str, float, float, str]] = []
    stop = threading.Event()

    def client(door: str) -> None:
        while not stop.is_set():
            began = time.monotonic()
            outcome = knock(door, request)
            seen.append((door, began, time.monotonic(), outcome))
            stop.wait(PAUSE_SECONDS)

    threads = [threading.Thread(target=client, args=(door,)) for door in doors for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    print("knocking", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
