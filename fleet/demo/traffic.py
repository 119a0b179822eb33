"""The cameras: one thread for each agent sends real inference requests and counts every failure.

    camera --image, binary tensor--> agent's endpoint --probabilities--> right or wrong?
                                  --feedback {id, label}--> for some of them

I/O: network, tasks, clock.
"""

import http.client
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from fleet.demo.training import Pictures

TIMEOUT_SECONDS = 15.0
FEEDBACK_EVERY = 3  # one answer in three is labelled by a person


@dataclass(slots=True)
class Tally:
    """What one camera has seen so far."""

    requests: int = 0
    failed: int = 0
    right: int = 0
    versions: set[str] = field(default_factory=set)
    last_failure: str = ""


class Camera(threading.Thread):
    """Sends pictures to one agent at a steady pace, from when it first has the model until stopped."""

    def __init__(self, *, name: str, endpoint: str, model: str, pictures: Pictures, per_second: float) -> None:
        super().__init__(name=f"camera-{name}", daemon=True)
        address = urlsplit(endpoint)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._model, self._pause = model, 1.0 / per_second
        self._pictures = pictures
        self._over = threading.Event()
        self.tally = Tally()

    def show(self, pictures: Pictures) -> None:
        """What stands before the lens from now on. Without truth: nobody labels the new scene."""
        self._pictures = pictures

    def stop(self) -> None:
        """End after the request in hand."""
        self._over.set()
        self.join(TIMEOUT_SECONDS)

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        while not self._ready(connection) and not self._over.wait(0.1):
            pass
        due = time.monotonic()
        for number in itertools.count():
            if self._over.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + self._pause, time.monotonic() - 1.0)
            pictures = self._pictures
            row = number * 7919 % len(pictures.images)  # a prime step: every picture in a scattered order
            try:
                self._one(connection, f"{self.name}-{number}", pictures, row, feedback=number % FEEDBACK_EVERY == 0)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.tally.failed += 1
                self.tally.last_failure = f"{type(error).__name__}: {error}"
                connection.close()
        connection.close()

    def _ready(self, connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("GET", f"/v2/models/{self._model}/ready")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return answer.status == http.client.OK

    def _one(
        self, connection: http.client.HTTPConnection, request: str, pictures: Pictures, row: int, *, feedback: bool
    ) -> None:
        self.tally.requests += 1
        head, body = _request(request, pictures.images[row : row + 1])
        connection.request("POST", f"/v2/models/{self._model}/infer", body, head)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise ValueError(f"HTTP {answer.status}: {content[:200].decode(errors='replace')}")
        length = int(answer.headers.get("Inference-Header-Content-Length", len(content)))
        described = json.loads(content[:length])
        self.tally.versions.add(described["model_version"])
        guess = int(np.argmax(np.frombuffer(content[length:], np.float32)))
        if row < len(pictures.labels):
            label = int(pictures.labels[row])
            self.tally.right += guess == label
            if feedback:
                self._label(connection, request, label)

    def _label(self, connection: http.client.HTTPConnection, request: str, label: int) -> None:
        body = json.dumps({"id": request, "label": label}).encode()
        connection.request("POST", f"/v2/models/{self._model}/feedback", body, {"Content-Type": "application/json"})
        connection.getresponse().read()


def _request(request: str, image: np.ndarray) -> tuple[dict[str, str], bytes]:
    tensor = image.tobytes()
    described = json.dumps(
        {
            "id": request,
            "inputs": [
                {
                    "name": "images",
                    "datatype": "FP32",
                    "shape": list(image.shape),
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    head = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(described)),
    }
    return head, described + tensor
