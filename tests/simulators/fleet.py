"""A whole fleet under test: a manager and agents as real processes, cameras, and an operator."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fleet.demo import training
from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.demo.operator import Operator
from fleet.demo.traffic import Camera
from fleet.demo.training import Digits, Pictures

MODEL = "digits"
T = TypeVar("T")


@dataclass
class Fleet:
    """One manager, its agents, and what an operator does with them."""

    household: Household
    operator: Operator
    url: str
    token: str
    broker_port: int
    digits: Digits = field(default_factory=training.load)
    cameras: list[Camera] = field(default_factory=list)

    def add_devices(self, *names: str) -> None:
        claim = self.operator.asks("device", "invite", "--uses", str(len(names)))["token"]
        for name in names:
            self.household.start_agent(name, manager=self.url, claim_token=claim)
        for name in names:
            self.watch(name)

    def publish(self, version: str, *, pictures: Pictures | None = None, reference: Pictures | None = None) -> None:
        model = training.train(pictures or self.digits.train, hidden=24, rounds=100, seed=int(version[-1]))
        self.publish_bytes(version, model, reference or self.digits.reference)

    def publish_bytes(self, version: str, model: bytes, reference: Pictures) -> None:
        path = self.household.folder / f"{version}.onnx"
        path.write_bytes(model)
        np.savez(path.with_suffix(".npz"), images=reference.images, y=reference.labels)
        self.operator.asks("model", "publish", MODEL, version, str(path), "--reference", str(path.with_suffix(".npz")))

    def start_rollout(self, version: str, *more: str, waves: str = "100%", bake: str = "1s") -> str:
        words = ["rollout", "start", f"{MODEL}@{version}", "--waves", waves, "--bake", bake, "--yes", *more]
        return str(self.operator.asks(*words)["id"])

    def rollout(self, rollout: str) -> dict[str, Any]:
        return self.operator.asks("rollout", "show", rollout)

    def roll_out(self, version: str, *, waves: str = "100%") -> dict[str, Any]:
        rollout = self.start_rollout(version, waves=waves)
        return self.ended(rollout)

    def ended(self, rollout: str) -> dict[str, Any]:
        final = {"completed", "rolled-back", "aborted", "failed"}
        return self.until(lambda: found if (found := self.rollout(rollout))["state"] in final else None)

    def device(self, name: str) -> dict[str, Any]:
        return self.operator.asks("device", "show", name)

    def serving(self, name: str) -> str | None:
        return self.device(name)["serving"].get(MODEL)

    def watch(self, name: str, pictures: Pictures | None = None, per_second: float = 40.0) -> Camera:
        endpoint = self.household.endpoint(name)["http"]
        pictures = pictures or self.digits.live
        camera = Camera(name=name, endpoint=endpoint, model=MODEL, pictures=pictures, per_second=per_second)
        camera.start()
        self.cameras.append(camera)
        return camera

    @property
    def database(self) -> Path:
        return next(self.household.manager_folder.glob("*.sqlite"))

    def restart_manager(self) -> None:
        """SIGKILL, then the same manager again at the same address."""
        self.household.kill("fleet")
        self.household.start_manager()

    def until(self, look: Callable[[], T | None], seconds: float = 120.0) -> T:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            time.sleep(0.2)
        logs = "\n".join(f"--- {p.name}\n{self.household.log(p.stem, 30)}" for p in self.household.folder.glob("*.log"))
        raise AssertionError(f"nothing within {seconds:.0f} s\n{logs}")

    def stop(self) -> None:
        for camera in self.cameras:
            camera.stop()
        self.household.stop()


@contextmanager
def running(folder: Path, broker_port: int, **settings: Any) -> Iterator[Fleet]:
    """A manager on the broker at `broker_port`, with its keys made; everything ends with the block."""
    folder.mkdir()
    household = Household(
        folder, settings={**MANAGER_SETTINGS, "mqtt": {"url": f"mqtt://127.0.0.1:{broker_port}"}, **settings}
    )
    try:
        url, token = household.start_manager()
        operator = Operator(url=url, token=token, keys=folder / "keys", show=lambda _: None)
        operator.asks("init")
        fleet = Fleet(household, operator, url, token, broker_port)
        try:
            yield fleet
        finally:
            fleet.stop()
    finally:
        household.stop()
