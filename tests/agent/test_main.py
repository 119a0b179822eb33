import json
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent import identity
from agent.__main__ import main
from agent.identity import BrokerAccount, Enrolment
from agent.update.slot_disk import SlotDisk
from agent.update.slots import Record, Slot, State
from tests.simulators import accelerators

HIDDEN = {
    "broken": {accelerators.TENSORRT: "no libnvinfer"},
    "failing": {accelerators.CUDA: "CUDA failure 100: no CUDA-capable device is detected"},
}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.mark.parametrize("name", ["enroll", "run", "status", "slots", "rollback", "doctor", "uninstall"])
def test_every_command_explains_itself_and_knows_json(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert name in call("--help").stdout
    assert "--json" in result.stdout
    assert "--state-dir" in result.stdout
    assert len(result.stdout.splitlines()[2].strip()) > 20


def test_without_a_daemon_status_says_how_to_start_it(tmp_path: Path) -> None:
    result = call("status", "--state-dir", tmp_path)
    assert result.exit_code == 6
    assert result.stdout == ""
    assert "error E_NOT_RUNNING:" in result.stderr
    assert "try: start it" in result.stderr


def test_an_error_is_one_json_document_on_stderr_with_json(tmp_path: Path) -> None:
    result = call("status", "--state-dir", tmp_path, "--json")
    assert (result.exit_code, result.stdout) == (6, "")
    assert json.loads(result.stderr)["code"] == "E_NOT_RUNNING"


def test_running_without_enrolment_says_how_to_enroll(tmp_path: Path) -> None:
    result = call("run", "--state-dir", tmp_path)
    assert result.exit_code == 1
    assert "E_NOT_ENROLLED" in result.stderr
    assert "flotilla-agent enroll" in result.stderr


def test_a_bad_setting_is_a_usage_error_with_file_and_line(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("serving:\n  http_prot: 1\n")
    result = call("run", "--config", config, "--state-dir", tmp_path)
    assert result.exit_code == 2
    assert f"{config}:2: serving.http_prot" in result.stderr
    assert "did you mean http_port?" in result.stderr


def test_enrolling_where_nobody_answers_is_unreachable(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = call("enroll", url, "--token", "t" * 32, "--id", "dev-a", "--state-dir", tmp_path)
    assert result.exit_code == 6
    assert "E_ENROL_UNREACHABLE" in result.stderr
    assert (tmp_path / "identity/keys.json").exists()


def test_a_bad_device_id_is_a_usage_error(tmp_path: Path) -> None:
    result = call("enroll", "http://x", "--token", "t", "--id", "No Good", "--state-dir", tmp_path)
    assert result.exit_code == 2
    assert "lower-case" in result.stderr


def test_slots_are_read_from_the_disk_while_no_daemon_runs(tmp_path: Path) -> None:
    assert call("slots", "--state-dir", tmp_path).stdout == "no model has arrived yet\n"
    disk = SlotDisk(tmp_path)
    good = Slot(State.GOOD, "1.0.0", "m", 1, since=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    disk.write(Record("digits", a=good, active="a", last_good="a"))
    lines = call("slots", "--state-dir", tmp_path).stdout.splitlines()
    assert lines[1].split()[:5] == ["digits", "a", "1.0.0", "good", "(last"]
    assert lines[-1] == "digits: no agent runs here"
    document = json.loads(call("slots", "--json", "--state-dir", tmp_path).stdout)
    assert document["models"][0]["slots"]["a"]["since"] == "2026-01-02T03:04:05Z"
    (tmp_path / "models/digits/slots.json").write_text("{")
    assert call("slots", "--state-dir", tmp_path).exit_code == 1


def test_a_rollback_is_not_done_without_being_meant(tmp_path: Path) -> None:
    result = call("rollback", "--state-dir", tmp_path)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert call("rollback", "--yes", "--state-dir", tmp_path).exit_code == 6


def test_the_doctor_sees_a_fresh_machine_as_healthy(tmp_path: Path) -> None:
    result = call("doctor", "--state-dir", tmp_path, "--json")
    document = json.loads(result.stdout)
    found = {check["name"]: check["result"] for check in document["checks"]}
    assert found == {"disk": "ok", "onnxruntime": "ok", "clock": "ok", "identity": "warning"}
    assert (result.exit_code, document["healthy"]) == (0, True)


def test_the_doctor_finds_what_is_broken(tmp_path: Path) -> None:
    port = free_port()
    identity.keys(tmp_path)
    identity.save(
        tmp_path,
        Enrolment(
            device_id="dev-a",
            lifecycle="accepted",
            api_key="k",
            mqtt=BrokerAccount(url=f"mqtt://127.0.0.1:{port}"),
            root="{}",
            manager_url=f"http://127.0.0.1:{port}",
        ),
    )
    config = tmp_path / "agent.yaml"
    config.write_text(f"serving: {{worker_python: {tmp_path}/no-python}}\nupdate: {{minimum_free_bytes: {2**62}}}\n")
    result = call("doctor", "--config", config, "--state-dir", tmp_path, "--json")
    document = json.loads(result.stdout)
    failed = {check["name"] for check in document["checks"] if check["result"] == "failed"}
    assert failed == {"disk", "onnxruntime", "manager", "broker"}
    assert all(check["remedy"] for check in document["checks"] if check["result"] == "failed")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("plan", "asked", "result", "detail"),
    [
        ({}, (), "ok", "TensorrtExecutionProvider comes up; CUDAExecutionProvider comes up"),
        ({"broken": {accelerators.TENSORRT: "none"}}, (), "ok", "CUDAExecutionProvider comes up; TensorrtExecutionP"),
        (HIDDEN, (), "warning", "CUDAExecutionProvider: CUDA failure 100: no CUDA-capable device is detected"),
        (HIDDEN, (accelerators.CUDA,), "failed", "CUDAExecutionProvider: CUDA failure 100: no CUDA-capable device"),
    ],
)
def test_the_doctor_tries_the_gpu(
    tmp_path: Path, plan: dict[str, Any], asked: tuple[str, ...], result: str, detail: str
) -> None:
    python = accelerators.interpreter(tmp_path, build_seconds=0, **plan)
    serving = {"worker_python": python, "providers": list(asked) or None}
    config = tmp_path / "agent.yaml"
    config.write_text(json.dumps({"serving": serving}))
    found = json.loads(call("doctor", "--config", config, "--state-dir", tmp_path, "--json").stdout)
    (check,) = [each for each in found["checks"] if each["name"] == "gpu"]
    assert check["result"] == result, check
    assert detail in check["detail"]


def test_the_doctor_looks_for_the_providers_that_are_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(f"serving: {{worker_python: {sys.executable}, providers: [NoSuchProvider]}}\n")
    result = call("doctor", "--config", config, "--state-dir", tmp_path)
    assert result.exit_code == 1
    assert "asked for NoSuchProvider" in result.stdout
