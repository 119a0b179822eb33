"""From starting the agent's process to its first right answer, the model already in its slot.

python -m tests.bench.startup [--quick] [--json]

The parts are measured beside the whole, each as a process of its own: importing the daemon, importing onnxruntime,
creating the session. The rest is the agent's own work: journal, slots, front, fork server, golden digest, routing.
"""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from fleet.demo import training
from fleet.demo.household import Household
from fleet.demo.operator import Operator
from fleet.demo.story import MODEL
from fleet.demo.traffic import Camera
from tests.bench.document import Result, arguments, median, tell

IMAGE = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * 64}
REQUEST = json.dumps({"inputs": [IMAGE]})
GOAL_MS = 3000.0  # serving again after SIGKILL (security_reliability §10)


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    rounds = 3 if asked.quick else 10
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        household = Household(Path(name))
        try:
            model = prepare(household)
            whole = [start_to_answer(household) for _ in range(rounds)]
        finally:
            household.stop()
        empty = [process_ms("pass") for _ in range(rounds)]
        daemon = [process_ms("import agent.daemon") for _ in range(rounds)]
        runtime = [process_ms("import numpy, onnxruntime") for _ in range(rounds)]
        session = [session_ms(model) for _ in range(rounds)]
    results = [
        Result("agent process to first answer, after SIGKILL", median(whole), "ms", GOAL_MS),
        Result("of it: an empty Python process", median(empty), "ms"),
        Result("of it: importing the daemon", round(median(daemon) - median(empty), 2), "ms"),
        Result("of it: importing numpy and onnxruntime (fork server)", round(median(runtime) - median(empty), 2), "ms"),
        Result("of it: creating the session of digits (a 20 kB model)", median(session), "ms"),
    ]
    return tell("startup", results, as_json=asked.json)


def prepare(household: Household) -> Path:
    """One device with digits 1.0.0 committed; the path of that model."""
    url, token = household.start_manager()
    operator = Operator(url=url, token=token, keys=household.folder / "keys", show=lambda _: None)
    operator.asks("init")
    household.start_agent("cam-1", manager=url, claim_token=operator.asks("device", "invite")["token"])
    digits = training.load()
    model, data = household.folder / "digits.onnx", household.folder / "reference.npz"
    model.write_bytes(training.train(digits.train, hidden=64, rounds=60, seed=1))
    np.savez(data, images=digits.reference.images, y=digits.reference.labels)
    operator.asks("model", "publish", MODEL, "1.0.0", str(model), "--reference", str(data))
    endpoint = household.endpoint("cam-1")["http"]
    camera = Camera(name="cam-1", endpoint=endpoint, model=MODEL, pictures=digits.live, per_second=40.0)
    camera.start()  # probation wants requests
    rollout = operator.asks("rollout", "start", f"{MODEL}@1.0.0", "--waves", "100%", "--bake", "0s", "--yes")["id"]
    ended = operator.asks("rollout", "wait", rollout)
    camera.stop()
    if ended["state"] != "completed":
        raise SystemExit(f"the rollout ended {ended['state']}: {ended['reason']}")
    return model


def start_to_answer(household: Household) -> float:
    household.kill("cam-1")
    endpoints = household.agent_folder("cam-1") / "endpoints.json"
    endpoints.unlink()
    began = time.perf_counter()
    household.run_agent("cam-1")
    address = urlsplit(household.endpoint("cam-1")["http"])
    while not answers(str(address.hostname), int(address.port or 0)):
        time.sleep(0.005)
    return (time.perf_counter() - began) * 1e3


def answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", REQUEST)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def process_ms(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - began) * 1e3


def session_ms(model: Path) -> float:
    code = (
        "import time, sys, onnxruntime as o; t = time.perf_counter(); "
        "o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']); print((time.perf_counter() - t) * 1e3)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
