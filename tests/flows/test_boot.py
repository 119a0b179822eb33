"""The agent as a device runs it: its own unit, under a systemd that really booted."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from nacl.public import PrivateKey

from agent import identity
from agent.identity import BrokerAccount, Enrolment
from agent.serving.worker_scheduling import FRONT, WORKER
from tests.simulators import booted
from tests.simulators.booted import status_of
from tests.simulators.release_repository import ReleaseRepository, tiny_model
from tests.simulators.updating_device import Device

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import numpy as np
    import tritonclient.http as triton

pytestmark = [pytest.mark.flow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).resolve().parents[2]
UNIT = "flotilla-agent.service"
STATE = "var/lib/flotilla-agent"
WATCHDOG_SECONDS = 5
WAKEFUL = Path("/dev/cpu_dma_latency")
PYTHON = f"/opt/python/bin/python3.{sys.version_info.minor}"
DROP_IN = f"""
[Service]
ExecStart=
ExecStart={PYTHON} -m agent run
Environment=PYTHONPATH=/opt/flotilla:/opt/packages LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
WatchdogSec={WATCHDOG_SECONDS}
"""
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0.5] * 8}]}
CAP_SYS_RESOURCE = 24
WAIT_SECONDS = 8  # of an application, over a restart; about 2 where nothing else runs
STARTS = 4  # where other things run beside it: no longer than so many starts
FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


async def with_a_model(state: Path) -> None:
    """What a device has on its disk after its first release, when its manager cannot be reached."""
    with ReleaseRepository() as repository:
        keys = identity.keys(state)
        device = Device(state, repository, box=PrivateKey(keys.box))
        async with device.on():
            await device.install(repository.publish("digits", "1.0.0", tiny_model()))
        account = BrokerAccount(url="mqtt://127.0.0.1:1")
        enrolled = Enrolment(
            device_id="cam-1",
            lifecycle="accepted",
            api_key="k",
            mqtt=account,
            root=repository.root.decode(),
            manager_url="http://127.0.0.1:1",
        )
        identity.save(state, enrolled)


def installed(seed: Path) -> None:
    """As docs/installing.md says."""
    for name, place in (
        (UNIT, "etc/systemd/system"),
        ("flotilla.sysusers.conf", "usr/lib/sysusers.d/flotilla.conf"),
        ("flotilla.tmpfiles.conf", "usr/lib/tmpfiles.d/flotilla.conf"),
    ):
        target = seed / place / (name if place.endswith("system") else "")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "systemd" / name, target)
    drop_in = seed / "etc/systemd/system" / f"{UNIT}.d" / "test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(DROP_IN)
    (seed / "etc/flotilla").mkdir()
    (seed / "etc/flotilla/agent.yaml").write_text(yaml.safe_dump({"serving": {"http_port": 8600}}))


@dataclass
class Agent:
    """The unit in a machine that is up, and how long its start took there."""

    machine: booted.Machine
    start_seconds: float

    @property
    def pid(self) -> int:
        """Of the daemon, seen from here."""
        inside = self.machine.fact(UNIT, "MainPID")
        return next(one.pid for one in self._processes() if status_of(one.pid)["NSpid"].split()[-1] == inside)

    def child(self, part: str) -> int:
        """The newest process that runs `part`."""
        return max(one.pid for one in self._processes() if f"'agent.serving.{part}'" in " ".join(one.cmdline()))

    def has_a_front_beside(self, old: int) -> bool:
        """Whether there is a newer one than this."""
        with contextlib.suppress(psutil.Error, ValueError):  # one that ends while it is looked at; none at all
            return self.child("front") != old
        return False

    @property
    def worker(self) -> int:
        forks = min(one.pid for one in self._processes() if "'agent.serving.fork_server'" in " ".join(one.cmdline()))
        return next(one.pid for one in psutil.Process(forks).children())

    def family(self) -> Mapping[str, int]:
        return {"agent": self.pid, "front": self.child("front"), "worker": self.worker}

    @property
    def doors(self) -> list[str]:
        return ["127.0.0.1:8600", str(self.machine.root / STATE / "inference.sock")]

    @property
    def patience_seconds(self) -> float:
        """What an application waits at most, over a restart."""
        return max(WAIT_SECONDS, STARTS * self.start_seconds)

    def restart(self) -> None:
        self.machine.run("systemctl", "restart", UNIT)

    def answers(self) -> bool:
        """As a stock client in the machine sees it."""
        code = f"from tests.flows.test_boot import ask; print(ask({self.doors[0]!r}))"
        asked = subprocess.run(
            self.machine.enter(sys.executable, "-c", code, everything=False),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr[-2000:] + self.machine.log(UNIT)[-3000:]
        return asked.stdout.split() == ["1.0.0"]

    def _processes(self) -> list[psutil.Process]:
        return psutil.Process(self.machine.init).children(recursive=True)

    @contextlib.contextmanager
    def changed(self, *lines: str) -> Iterator[None]:
        """The unit with these lines besides, for a while."""
        path = self.machine.root / "run/systemd/system" / f"{UNIT}.d" / "more.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_text("\n".join(["[Service]", *lines, ""]))
            self.machine.run("systemctl", "daemon-reload")
            self.restart()
            yield
        finally:
            path.unlink()
            self.machine.run("systemctl", "daemon-reload")
            self.restart()


def ask(address: str) -> str:
    """The version that answers a stock client."""
    tensor = triton.InferInput("x", [1, 8], "FP32")
    tensor.set_data_from_numpy(np.full((1, 8), 0.5, np.float32))
    with triton.InferenceServerClient(address) as client:
        return str(client.infer("digits", [tensor]).get_response()["model_version"])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    if reason := booted.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("boot")
    seed = folder / "seed"
    (seed / STATE).mkdir(parents=True)
    asyncio.run(with_a_model(seed / STATE))
    installed(seed)
    seen = {
        "/opt/python": Path(sys.base_prefix),
        "/opt/packages": Path(sysconfig.get_paths()["purelib"]),
        "/opt/flotilla": ROOT,
    }
    devices = (WAKEFUL,) if WAKEFUL.exists() else ()
    try:
        machine = booted.Machine(folder, seed, seen=seen, devices=devices)
    except booted.CannotBootError as error:
        pytest.skip(f"no container boots on this machine: {error}")
    with machine:
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "flotilla.conf")
        machine.run("chown", "-R", "flotilla-agent:", f"/{STATE}")
        began = time.monotonic()
        machine.run("systemctl", "start", UNIT)
        yield Agent(machine, time.monotonic() - began)


@contextlib.contextmanager
def knocking(agent: Agent, folder: Path) -> Iterator[list[list[object]]]:
    """New connections at both doors all the while; what became of them is in the list afterwards."""
    body = json.dumps(REQUEST).encode()
    head = (
        f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    (folder / "request").write_bytes(head.encode() + body)
    command = [sys.executable, "-m", "tests.simulators.knocking", str(folder / "request"), *agent.doors]
    process = subprocess.Popen(
        agent.machine.enter(*command, everything=False),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen: list[list[object]] = []
    try:
        assert process.stdout.readline() == "knocking\n"
        time.sleep(0.3)
        yield seen
        time.sleep(0.3)
    finally:
        out, _ = process.communicate(timeout=60)
    seen += json.loads(out)


def outcomes(seen: list[list[object]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in seen:
        found[str(entry[3])] = found.get(str(entry[3]), 0) + 1
    return found


def longest_wait(seen: list[list[object]]) -> float:
    """Seconds from the begin of a connection to its answer."""
    return max(float(str(entry[2])) - float(str(entry[1])) for entry in seen)


def test_it_is_ready_and_a_stock_client_is_answered(agent: Agent) -> None:
    assert agent.machine.fact(UNIT, "ActiveState") == "active"
    assert agent.machine.fact(UNIT, "NFileDescriptorStore") == "2"
    assert agent.answers()


def test_it_has_no_rights_and_sees_few_devices(agent: Agent) -> None:
    family = agent.family()
    for name, pid in family.items():
        status = status_of(pid)
        assert (status["NoNewPrivs"], status["Seccomp"], status["CapEff"]) == ("1", "2", "0" * 16), name
    filters = {name: int(status_of(pid)["Seccomp_filters"]) for name, pid in family.items()}
    assert filters["worker"] == filters["front"] + 1, "it shut itself in"
    log = agent.machine.log(UNIT)
    assert "confines workers less" not in log
    assert "Traceback" not in log
    devices = {path.name for path in Path(f"/proc/{family['agent']}/root/dev").iterdir()}
    assert not devices & {"kmsg", "mem", "sda", "vda", "kvm", "fuse", "rtc0"}
    if WAKEFUL.exists():
        assert "cpu_dma_latency cannot be written" not in log
        assert str(WAKEFUL) in {os.readlink(link) for link in Path(f"/proc/{family['front']}/fd").iterdir()}
    scores = {name: int((Path("/proc") / str(pid) / "oom_score_adj").read_text()) for name, pid in family.items()}
    assert scores["worker"] == 500
    if agent.machine.may(CAP_SYS_RESOURCE):
        assert (scores["agent"], scores["front"]) == (-500, -500)


def test_front_and_workers_are_in_the_real_time_class(agent: Agent) -> None:
    assert (agent.machine.fact(UNIT, "LimitRTPRIO"), agent.machine.fact(UNIT, "LimitNICE")) == ("2", "20")
    lines = []
    if not agent.machine.may(CAP_SYS_RESOURCE):
        # The root of this machine may not raise limits: the same right as a capability. All filters are the unit's.
        lines = ["PrivateUsers=no", "CapabilityBoundingSet=CAP_SYS_NICE", "AmbientCapabilities=CAP_SYS_NICE"]
    mark = len(agent.machine.log(UNIT))
    with agent.changed(*lines):
        family = agent.family()
        classes = {
            name: (os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority) for name, pid in family.items()
        }
        assert classes == {"agent": (os.SCHED_OTHER, 0), "front": (FIFO, FRONT), "worker": (FIFO, WORKER)}
        log = agent.machine.log(UNIT)[mark:]
        assert "front is up class=realtime" in log
        assert "class='realtime'" in log
        assert agent.answers()


def test_restarts_in_order_fail_no_request(agent: Agent, tmp_path: Path) -> None:
    before = agent.pid
    with knocking(agent, tmp_path) as seen:
        for _ in range(2):
            agent.restart()
            time.sleep(0.5)
    assert agent.pid != before
    assert set(outcomes(seen)) == {"200"}, outcomes(seen)
    assert len({entry[0] for entry in seen}) == 2
    assert longest_wait(seen) < agent.patience_seconds


def test_sigkill_of_everything_refuses_no_connection(agent: Agent, tmp_path: Path) -> None:
    restarts = int(agent.machine.fact(UNIT, "NRestarts"))
    with knocking(agent, tmp_path) as seen:
        # Where control groups are of the old kind it reaches the daemon only; the others end with that.
        agent.machine.run("systemctl", "kill", "-s", "KILL", UNIT, check=False)
        agent.machine.until(lambda: int(agent.machine.fact(UNIT, "NRestarts")) > restarts)
        agent.machine.until(lambda: agent.machine.fact(UNIT, "ActiveState") == "active")
    found = outcomes(seen)
    assert not [name for name in found if name.startswith("refused")], found
    assert sum(number for name, number in found.items() if name != "200") <= 4, found  # those under way
    assert found["200"] > 20
    assert longest_wait(seen) < agent.patience_seconds


def test_a_front_that_hangs_is_replaced_within_the_watchdogs_limit(agent: Agent, tmp_path: Path) -> None:
    family = agent.family()
    restarts = agent.machine.fact(UNIT, "NRestarts")
    with knocking(agent, tmp_path) as seen:
        os.kill(family["front"], signal.SIGSTOP)
        began = time.monotonic()
        agent.machine.until(lambda: agent.has_a_front_beside(family["front"]), WATCHDOG_SECONDS + 5)
        assert time.monotonic() - began < WATCHDOG_SECONDS + 1
    found = outcomes(seen)
    assert sum(number for name, number in found.items() if name != "200") <= 4, found  # those under way
    assert not psutil.pid_exists(family["front"])
    assert agent.answers()
    assert (agent.worker, agent.pid) == (family["worker"], family["agent"])
    assert agent.machine.fact(UNIT, "NRestarts") == restarts


def test_an_agent_that_hangs_is_restarted_within_the_watchdogs_limit_and_a_second(agent: Agent) -> None:
    family = agent.family()
    os.kill(family["agent"], signal.SIGSTOP)
    began = time.monotonic()
    agent.machine.until(lambda: not psutil.pid_exists(family["agent"]), WATCHDOG_SECONDS + 5)
    assert time.monotonic() - began < WATCHDOG_SECONDS + 1
    assert agent.answers()
    assert "Watchdog timeout" in agent.machine.log(UNIT)


def test_other_settings_and_a_stop_leave_no_old_socket_behind(agent: Agent) -> None:
    with agent.changed(
        "Environment=FLOTILLA_SERVING__HTTP_PORT=8610 FLOTILLA_SERVING__UDS_PATH=/run/flotilla-agent/ask.sock"
    ):
        assert agent.machine.fact(UNIT, "NFileDescriptorStore") == "2"
        listening = agent.machine.run("cat", "/proc/net/tcp").upper()
        assert f":{8610:04X} 00000000:0000 0A" in listening
        assert f":{8600:04X} 00000000:0000 0A" not in listening
        assert not (agent.machine.root / STATE / "inference.sock").exists()
        agent.restart()  # systemd keeps the folder in /run as well
        assert (agent.machine.root / "run/flotilla-agent/ask.sock").stat().st_mode & 0o777 == 0o666
        assert agent.machine.fact(UNIT, "NFileDescriptorStore") == "2"
        agent.machine.run("systemctl", "stop", UNIT)
        assert agent.machine.fact(UNIT, "NFileDescriptorStore") == "0"
    assert agent.answers()


def test_uninstalling_stops_and_removes_the_service_and_leaves_nothing_of_it(agent: Agent) -> None:
    """The last one here: the machine has no agent afterwards."""
    said = ["PYTHONPATH=/opt/flotilla:/opt/packages", "LD_LIBRARY_PATH=/opt/python/lib", "PYTHONDONTWRITEBYTECODE=1"]
    machine = agent.machine
    machine.run("systemctl", "enable", UNIT)
    done = json.loads(machine.run("env", *said, PYTHON, "-m", "agent", "uninstall", "--yes", "--json"))
    assert done["complete"], done
    assert done["manager"]["told"] is False  # there is none at that address
    assert machine.fact(UNIT, "ActiveState") == "inactive"
    for place in (STATE, f"etc/systemd/system/{UNIT}", "usr/lib/tmpfiles.d/flotilla.conf", "run/flotilla-agent"):
        assert not (machine.root / place).exists(), place
    assert not list((machine.root / "etc/systemd/system").glob(f"*.wants/{UNIT}"))
    reasons = {Path(one["what"]).name: one["why"] for one in done["stayed"]}
    assert reasons[f"{UNIT}.d"] == "you made it (systemctl edit)"
    assert "userdel flotilla-agent" in str(done["stayed"])
