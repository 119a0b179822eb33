"""An application on the device, with NVIDIA's own client, against a running agent."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from tests.simulators.fleet import MODEL, Fleet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton

pytestmark = [pytest.mark.flow, pytest.mark.filterwarnings("ignore")]
BACK_SECONDS = 3.0


@pytest.fixture
def client(fleet: Fleet) -> Iterator[triton.InferenceServerClient]:
    fleet.add_devices("cam-1")
    fleet.publish("1.0.0")
    assert fleet.roll_out("1.0.0")["state"] == "completed"
    with triton.InferenceServerClient(urlsplit(fleet.household.endpoint("cam-1")["http"]).netloc) as client:
        yield client


def infer(client: triton.InferenceServerClient, images: np.ndarray, *, binary: bool) -> np.ndarray:
    tensor = triton.InferInput("images", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary)
    return np.asarray(client.infer(MODEL, [tensor], outputs=[wanted]).as_numpy("probabilities"))


def test_it_works_unchanged_and_survives_the_death_of_the_worker(
    fleet: Fleet, client: triton.InferenceServerClient
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.get_model_metadata(MODEL)["inputs"] == [
        {"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    ]
    images = fleet.digits.live.images[:50]
    answers = infer(client, images, binary=True)
    assert np.mean(answers.argmax(1) == fleet.digits.live.labels[:50]) > 0.8
    np.testing.assert_allclose(infer(client, images, binary=False), answers, rtol=1e-5)

    for worker in workers(fleet):
        os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    np.testing.assert_allclose(infer(client, images, binary=True), answers, rtol=1e-6)
    assert time.monotonic() - began < BACK_SECONDS
    camera = fleet.cameras[0]
    before = camera.tally.requests
    fleet.until(lambda: camera.tally.requests > before + 20 or None)
    assert camera.tally.failed <= 1  # the one in flight at that instant


def _command(process: psutil.Process) -> str:
    """Empty for a process that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def workers(fleet: Fleet) -> list[int]:
    """Processes that the agent's fork server made, one for each loaded version."""
    state = str(fleet.household.agent_folder("cam-1"))
    agent = next(it for it in psutil.process_iter() if state in _command(it))
    fork_server = next(it for it in agent.children() if "fork_server" in _command(it))
    found = [child.pid for child in fork_server.children()]
    assert found
    return found
