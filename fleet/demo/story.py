"""The acts of the demo, each with the outcome that it must have.

    household -> 1.0.0 to all -> 1.1.0 by canary -> bad 1.2.0, stopped -> darkness, drift alert

I/O: disk, tasks, clock.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fleet.demo import training
from fleet.demo.household import Household
from fleet.demo.operator import Operator
from fleet.demo.traffic import Camera
from fleet.demo.training import Digits, Pictures
from shared.durable import replace_file
from shared.errors import BrokenError

MODEL: Final = "digits"
DEVICES: Final = ("cam-1", "cam-2", "cam-3")
RELEASES: Final = ("1.0.0", "1.1.0", "1.2.0")
PER_SECOND: Final = 40.0  # requests of one camera
ENOUGH_REQUESTS: Final = 5000
ROLLOUT_SECONDS: Final = 120.0
DRIFT_SECONDS: Final = 60.0


class TurnedOutOtherwiseError(BrokenError):
    """An act of the demo ended in another way than it must."""

    code = "E_DEMO_OUTCOME"


@dataclass
class Story:
    """Plays the acts in order; `outcome` is the document of `flotilla demo --json`."""

    household: Household
    show: Callable[[str], None]
    outcome: dict[str, Any] = field(default_factory=dict)
    _cameras: dict[str, Camera] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def play(self) -> None:
        """All acts.

        Raises:
            BrokenError: the first act that did not end as told.
        """
        digits = training.load()
        operator = self._open()
        self._first_release(operator, digits)
        self._good_release(operator, digits)
        self._bad_release(operator, digits)
        self._darkness(operator, digits.live)
        self._count(operator)

    def stop(self) -> None:
        """End the cameras."""
        for camera in self._cameras.values():
            camera.stop()

    def _open(self) -> Operator:
        self._act("A manager, a broker and three devices, each its own process")
        url, token = self.household.start_manager()
        keys = self.household.folder / "keys"
        operator = Operator(url=url, token=token, keys=keys, show=lambda text: self._say(f"  {text}"))
        self._say(f"  dashboard  {url}/login?token={token}")
        operator.types("init")
        claim = operator.types("device", "invite", "--uses", str(len(DEVICES)), "--site", "campus")["token"]
        with ThreadPoolExecutor(len(DEVICES)) as pool:
            list(pool.map(lambda it: self.household.start_agent(it, manager=url, claim_token=claim), DEVICES))
        agents = [self.household.endpoint(device) for device in DEVICES]
        addresses = {"manager": url, "token": token, "agents": agents}
        replace_file(self.household.folder / "endpoints.json", json.dumps(addresses, indent=2).encode())
        for agent in agents:
            self._say(f"  {agent['id']}      {agent['http']}/v2/health/ready")
        self.outcome.update(devices=list(DEVICES), releases=[])
        return operator

    def _first_release(self, operator: Operator, digits: Digits) -> None:
        self._act("digits 1.0.0, a small net, goes to every device")
        self._publish(operator, "1.0.0", digits.train, digits.reference, hidden=16, rounds=160)
        self._say(f"  cameras on: {PER_SECOND * len(DEVICES):.0f} real requests a second from the first answer on")
        for device in DEVICES:
            endpoint = self.household.endpoint(device)["http"]
            camera = Camera(name=device, endpoint=endpoint, model=MODEL, pictures=digits.live, per_second=PER_SECOND)
            camera.start()
            self._cameras[device] = camera
        self._roll_out(operator, "1.0.0", waves="100%", must_end="completed")

    def _good_release(self, operator: Operator, digits: Digits) -> None:
        self._act("digits 1.1.0, a better net, comes by canary")
        self._publish(operator, "1.1.0", digits.train, digits.reference, hidden=64, rounds=120)
        rollout = self._roll_out(operator, "1.1.0", waves="1,100%", must_end="completed")
        self.outcome["canary"] = {"rollout": rollout["id"], "state": rollout["state"]}

    def _bad_release(self, operator: Operator, digits: Digits) -> None:
        self._act("digits 1.2.0 was trained on negatives by mistake; it passes every test of its maker")
        wrong = training.negative(digits.train), training.negative(digits.reference)
        self._publish(operator, "1.2.0", *wrong, hidden=64, rounds=120)
        rollout = self._roll_out(operator, "1.2.0", waves="1,100%", must_end="rolled-back")
        exposed = [it["device"] for it in rollout["deployments"] if it["touched"]]
        self.outcome["bad_release"] = {
            "rollout": rollout["id"],
            "state": rollout["state"],
            "reason": rollout["reason"],
            "exposed_devices": exposed,
        }
        self._must(len(exposed) == 1, f"1.2.0 must touch its canary only, it touched {exposed}")

    def _darkness(self, operator: Operator, live: Pictures) -> None:
        self._act("dusk, and the lenses are dirty: blurred, darkened digits")
        dark = Pictures(training.darken(live.images), np.empty(0, np.int64))  # nobody labels the new scene
        for camera in self._cameras.values():
            camera.show(dark)
        alert = self._wait_for(
            lambda: next((it for it in operator.asks("alert", "list")["items"] if _is_grave(it)), None),
            DRIFT_SECONDS,
            "no drift alert",
        )
        self._say(f"  {alert['id']}  {alert['severity']}  {alert['text']}")
        self.outcome["drift"] = {
            "state": "drifted",
            "feature": alert["body"]["feature"],
            "psi": alert["body"]["psi"],
            "alert_id": alert["id"],
        }

    def _count(self, operator: Operator) -> None:
        self._act("The count")
        self._wait_for(lambda: self._requests() >= ENOUGH_REQUESTS or None, ROLLOUT_SECONDS, "cameras too slow")
        devices = operator.asks("device", "list")["items"]
        deployed = {device["id"]: device["serving"].get(MODEL) for device in devices}
        failed = sum(camera.tally.failed for camera in self._cameras.values())
        self.outcome.update(
            deployed=deployed,
            inference={"requests": self._requests(), "failed": failed},
            seconds=round(time.monotonic() - self._began, 1),
        )
        self._say(f"  {self._requests()} requests, {failed} failed; every device runs {set(deployed.values())}")
        self._must(failed == 0, "; ".join(c.tally.last_failure for c in self._cameras.values() if c.tally.failed))
        self._must(deployed == dict.fromkeys(DEVICES, "1.1.0"), f"all devices must run 1.1.0: {deployed}")

    def _publish(
        self, operator: Operator, version: str, pictures: Pictures, reference: Pictures, *, hidden: int, rounds: int
    ) -> None:
        folder = self.household.folder / "models"
        folder.mkdir(exist_ok=True)
        model, data = folder / f"digits-{version}.onnx", folder / f"reference-{version}.npz"
        model.write_bytes(training.train(pictures, hidden=hidden, rounds=rounds, seed=1))
        np.savez(data, images=reference.images, y=reference.labels)
        told = operator.types("model", "publish", MODEL, version, str(model), "--reference", str(data))
        self._say(f"  {MODEL}@{version}  accuracy on its reference {told['metrics']['accuracy']:.3f}")
        self.outcome["releases"].append(version)

    def _roll_out(self, operator: Operator, version: str, *, waves: str, must_end: str) -> dict[str, Any]:
        options = ["--waves", waves, "--bake", "2s", "--yes"]
        started = operator.types("rollout", "start", f"{MODEL}@{version}", *options)
        seen: dict[str, str] = {}

        def look() -> dict[str, Any] | None:
            rollout = operator.asks("rollout", "show", started["id"])
            for it in rollout["deployments"]:
                if seen.get(it["device"], "queued") != it["state"]:
                    why = f"  {it['reason']}: {it['detail']}" if it["reason"] else ""
                    self._say(f"  {rollout['id']}  {it['device']}  {it['state']}{why}")
                seen[it["device"]] = it["state"]
            return rollout if rollout["state"] in {"completed", "rolled-back", "aborted", "failed"} else None

        rollout: dict[str, Any] = self._wait_for(look, ROLLOUT_SECONDS, f"rollout of {version} does not end")
        self._say(f"  {rollout['id']}  {rollout['state']}" + (f": {rollout['reason']}" if rollout["reason"] else ""))
        self._must(rollout["state"] == must_end, f"rollout of {version} ended {rollout['state']}, not {must_end}")
        return rollout

    def _wait_for(self, look: Callable[[], Any], seconds: float, else_: str) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            time.sleep(0.4)
        raise TurnedOutOtherwiseError(f"{else_} within {seconds:.0f} s")

    def _requests(self) -> int:
        return sum(camera.tally.requests for camera in self._cameras.values())

    def _act(self, title: str) -> None:
        self._say(f"\n{time.monotonic() - self._began:5.1f} s  {title}")

    def _say(self, text: str) -> None:
        self.show(text)

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise TurnedOutOtherwiseError(otherwise)


def _is_grave(alert: dict[str, Any]) -> bool:
    """Drift that grew to what darkness makes; the alarm rings before, at the first certain sign."""
    return bool(alert["kind"] == "drift" and alert["body"]["psi"] > alert["body"]["limit"])
