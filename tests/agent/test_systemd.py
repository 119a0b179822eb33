"""The units of both daemons, judged by systemd itself."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from agent.serving import worker_scheduling

UNITS = Path(__file__).resolve().parents[2] / "systemd"
BEST = {"flotilla-agent.service": 13, "flotilla-fleet.service": 9}  # exposure times ten


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    return program


@pytest.mark.parametrize("name", BEST)
def test_systemd_finds_nothing_wrong(name: str, analyze: str, tmp_path: Path) -> None:
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", (UNITS / name).read_text())
    assert "ExecStart=/usr/bin/flotilla" not in text
    (tmp_path / name).write_text(text)
    done = subprocess.run([analyze, "verify", tmp_path / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", BEST)
def test_little_of_the_machine_is_exposed(name: str, analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=yes", f"--threshold={BEST[name]}", UNITS / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("name", BEST)
def test_a_daemon_says_when_it_serves_and_is_watched(name: str) -> None:
    lines = (UNITS / name).read_text().splitlines()
    assert {"Type=notify", "Restart=on-failure", "NoNewPrivileges=yes"} <= set(lines)
    assert any(re.fullmatch(r"WatchdogSec=\d+", line) for line in lines)
    assert any(line.startswith("StateDirectory=flotilla-") for line in lines)


def test_the_agent_gets_the_priorities_that_its_processes_ask_for() -> None:
    lines = set((UNITS / "flotilla-agent.service").read_text().splitlines())
    assert {f"LimitRTPRIO={worker_scheduling.FRONT}", "LimitNICE=+0", "RestrictRealtime=no", "LimitCORE=0"} <= lines
    allowed = {word for line in lines if re.match("SystemCallFilter=[a-z]", line) for word in line[17:].split()}
    assert {"sched_setscheduler", "setpriority"} <= allowed
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= allowed
    # Where the kernel has CONFIG_RT_GROUP_SCHED, a group of the cpu controller has no share of real time.
    assert not [line for line in lines if line.startswith(("CPUWeight", "CPUQuota", "CPUShares", "Delegate"))]


def test_every_device_that_is_bound_may_be_used() -> None:
    text = (UNITS / "flotilla-agent.service").read_text()
    bound = [word.removeprefix("-/dev/") for line in re.findall(r"(?m)^BindPaths=(.*)$", text) for word in line.split()]
    patterns = re.findall(r"(?m)^DeviceAllow=(?:char-|/dev/)(\S+) ", text)
    alike = {"dri": "drm", "dma_heap": "dma_heap", "host1x-fence": "host1x*"}
    assert len(bound) > 10
    for name in bound:
        assert any(fnmatch(name, pattern) or alike.get(name) == pattern for pattern in patterns), name


def test_the_agent_may_compile_at_run_time() -> None:
    assert not re.search(r"(?m)^MemoryDenyWriteExecute", (UNITS / "flotilla-agent.service").read_text())


def test_users_and_folders_are_made(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed: apt install systemd")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", UNITS / "flotilla.sysusers.conf"], check=True)
    users = (tmp_path / "etc/passwd").read_text()
    assert "flotilla-agent" in users
    assert "flotilla-fleet" in users
    if shutil.which("systemd-tmpfiles") is not None:
        subprocess.run(
            ["systemd-tmpfiles", "--create", f"--root={tmp_path}", UNITS / "flotilla.tmpfiles.conf"], check=True
        )
        assert (tmp_path / "var/lib/flotilla-agent").stat().st_mode & 0o777 == 0o700


def test_mosquitto_takes_its_configuration(tmp_path: Path) -> None:
    """Up to the certificates, which only an installation has."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).exists():
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    text = (UNITS / "mosquitto.conf").read_text()
    assert {"set_tcp_nodelay true", "max_packet_size 262144", "max_keepalive 120"} <= set(text.splitlines())
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(text.replace("/etc/flotilla/tls", str(tmp_path)).replace("/etc/mosquitto", str(UNITS)))
    done = subprocess.run([program, "-c", configuration], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "Unknown configuration variable" not in done.stderr
    assert "server.crt" in done.stderr or "ca.crt" in done.stderr, done.stderr
