"""The usage examples of the original system, with real agents, and what its callers may get wrong."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.demo.household import AGENT_SETTINGS, MANAGER_SETTINGS, Household
from fleet.jobs.book import JobNotFoundError, NotRegisteredError
from fleet.jobs.lease import Lease
from fleet.system import (
    AutomatedUpdateScheduler,
    DeploymentStatus,
    EdgeModelDeploymentSystem,
    ModelDriftDetector,
    UpdatePriority,
    UpdateStrategy,
)
from shared.configuration import ConfigurationError
from shared.errors import BadInputError, FlotillaError

pytestmark = pytest.mark.flow


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    deployment = {**MANAGER_SETTINGS["deployment"], "base_dir": str(tmp_path / "base")}
    return {**MANAGER_SETTINGS, "deployment": deployment}


@contextmanager
def provisioning(folder: Path, base: Path, url_of: Any) -> Iterator[Household]:
    """Who sets devices up: takes each claim token that appears, and starts a real agent with it."""
    update = {**AGENT_SETTINGS["update"], "probation_seconds": 1, "probation_limit_seconds": 2}
    household = Household(folder, agent_settings={**AGENT_SETTINGS, "update": update})
    over, started = threading.Event(), set()

    def watch() -> None:
        while not over.wait(0.1):
            for token in (base / "claims").glob("*.token"):
                if token.stem not in started and token.read_text().strip():
                    started.add(token.stem)
                    household.start_agent(token.stem, manager=url_of(), claim_token=token.read_text().strip())

    thread = threading.Thread(target=watch)
    folder.mkdir()
    thread.start()
    try:
        yield household
    finally:
        over.set()
        thread.join(60)
        household.stop()


async def all_online(system: EdgeModelDeploymentSystem, names: list[str]) -> None:
    async with asyncio.timeout(60):
        while {(await system.get_device_status(name))["status"] for name in names} != {"online"}:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def url_in(base: Path) -> Any:
    import json

    return lambda: json.loads((base / "endpoints.json").read_text())["manager"]


def info(device_id: str) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "device_name": "Jetson Orin Nano",
        "ip_address": "192.168.1.100",
        "port": 8080,
        "hardware_info": {"gpu": "Orin Nano", "memory_gb": 8, "storage_gb": 128},
    }


async def test_the_first_example_a_deployment_job_reaches_a_real_device(
    config: dict[str, Any], tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "base"
    with provisioning(tmp_path / "agents", base, url_in(base)):
        deployment_system = EdgeModelDeploymentSystem(config)
        device = await deployment_system.register_edge_device(info("jetson_001"))
        assert (await deployment_system.get_device_status("jetson_001"))["status"] in ("registered", "online")
        model_version = await deployment_system.register_model_version(
            model_path=model,
            performance_metrics={"mAP50": 0.95, "precision": 0.93, "recall": 0.91, "inference_time_ms": 25.0},
        )
        assert model_version.version_id.startswith("v20")
        assert model_version.performance_metrics["mAP50"] == 0.95
        job = await deployment_system.create_deployment_job(
            model_version_id=model_version.version_id, target_devices=[device.device_id], deployment_type="full"
        )
        assert (await deployment_system.get_deployment_status(job.job_id))["status"] == "pending"
        assert await deployment_system.execute_deployment_job(job.job_id) is True
        status = await deployment_system.get_deployment_status(job.job_id)
        assert (status["status"], status["progress"]) == ("completed", 1.0)
        assert status["devices"]["jetson_001"]["status"] == "committed"
        assert await deployment_system.execute_deployment_job(job.job_id) is True  # and nothing happens again
        found = await deployment_system.get_device_status("jetson_001")
        assert found["current_version"] == model_version.version_id
        assert (found["device_name"], found["status"]) == ("Jetson Orin Nano", "online")
        with caplog.at_level("INFO", "fleet.jobs.monitor"):
            await deployment_system.start_performance_monitoring()
            async with asyncio.timeout(20):
                while "performance device_id=jetson-001" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        await deployment_system.start_automated_update_scheduler()
        metrics = await deployment_system.get_device_performance_metrics(device)
        assert metrics["device_id"] == "jetson_001"
        again = await deployment_system.create_deployment_job(model_version.version_id, ["jetson_001"])
        assert await deployment_system.execute_deployment_job(again.job_id) is True  # it serves it already
        await deployment_system.shutdown()
    assert not Lease._running


async def test_the_second_example_a_drift_summary_of_a_week(config: dict[str, Any]) -> None:
    system = EdgeModelDeploymentSystem(config)
    await system.register_edge_device(info("jetson_001"))
    drift_detector = ModelDriftDetector(config)
    await drift_detector.start_drift_monitoring()
    summary = await drift_detector.get_drift_summary("jetson_001", days=7)
    assert (summary["state"], summary["total_alerts"], summary["drift_detected"]) == ("no data", 0, False)
    assert await drift_detector.acknowledge_alert("al-none") is False
    with pytest.raises(NotRegisteredError, match="jetson_002"):
        await drift_detector.get_drift_summary("jetson_002", days=7)
    with pytest.raises(BadInputError, match="days"):
        await drift_detector.get_drift_summary("jetson_001", days=0)
    await drift_detector.stop_drift_monitoring()
    assert (await system.get_device_status("jetson_001"))["status"] == "registered"  # the other one still runs
    await system.shutdown()
    assert not Lease._running


async def test_the_third_example_a_canary_on_three_devices_at_a_time(
    config: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    base = tmp_path / "base"
    names = ["device_001", "device_002", "device_003"]
    with provisioning(tmp_path / "agents", base, url_in(base)):
        system = EdgeModelDeploymentSystem(config)
        for name in names:
            await system.register_edge_device(info(name))
        version = await system.register_model_version(model, {"mAP50": 0.9})
        await all_online(system, names)
        update_scheduler = AutomatedUpdateScheduler(system)
        await update_scheduler.start_scheduler()
        schedule_id = await update_scheduler.schedule_update(
            model_version_id=version.version_id,
            target_devices=names,
            strategy=UpdateStrategy.CANARY,
            priority=UpdatePriority.HIGH,
            scheduled_time=datetime.now() + timedelta(seconds=2),  # noqa: DTZ005  # as callers write it
            bake_seconds=0,
        )
        later = await update_scheduler.schedule_update(
            version.version_id, names, scheduled_time=datetime.now().astimezone() + timedelta(minutes=30)
        )
        assert (await update_scheduler.get_update_status(later))["status"] == "scheduled"
        assert await update_scheduler.cancel_update(later) is True
        assert await update_scheduler.cancel_update(later) is False
        assert (await update_scheduler.get_update_status(later))["status"] == "cancelled"
        seen = []
        while (status := await update_scheduler.get_update_status(schedule_id))["status"] not in (
            "completed",
            "failed",
            "cancelled",
        ):
            seen.append(status["status"])
            await asyncio.sleep(0.2)
        assert status["status"] == "completed", status
        assert set(status["devices"].values()) == {"committed"}
        assert (status["priority"], status["strategy"]) == ("high", "canary")
        assert "in_progress" in seen
        await update_scheduler.stop_scheduler()
        await system.shutdown()


async def test_everything_is_remembered_by_the_next_program(config: dict[str, Any], model: Path) -> None:
    first = EdgeModelDeploymentSystem(config)
    device = await first.register_edge_device(info("jetson_001"))
    version = await first.register_model_version(model, {"mAP50": 0.9}, model_name="yolo")
    job = await first.create_deployment_job(version.version_id, ["jetson_001"], "rolling")
    await first.shutdown()
    then = EdgeModelDeploymentSystem(config)
    assert await then.cleanup_old_versions() == []  # it is the only one, and young
    status = await then.get_deployment_status(job.job_id)
    assert (status["status"], status["deployment_type"]) == ("pending", "rolling")
    assert (await then.register_edge_device(info("jetson_001"))).claim_token == device.claim_token
    await then.shutdown()


async def test_a_device_whose_agent_never_comes_fails_its_job_in_time(config: dict[str, Any], model: Path) -> None:
    config["deployment"]["deployment_timeout_minutes"] = 0.01
    system = EdgeModelDeploymentSystem(config)
    await system.register_edge_device(info("jetson_001"))
    version = await system.register_model_version(model, {})
    job = await system.create_deployment_job(version.version_id, ["jetson_001"])
    assert await system.execute_deployment_job(job.job_id) is False
    await system.shutdown()


async def test_mistakes_say_what_to_do(config: dict[str, Any], model: Path, tmp_path: Path) -> None:
    system = EdgeModelDeploymentSystem(config)
    scheduler = AutomatedUpdateScheduler(config)
    with pytest.raises(BadInputError, match="no device_id"):
        await system.register_edge_device({"device_name": "x"})
    await system.register_edge_device(info("jetson_001"))
    with pytest.raises(BadInputError, match="one id in the fleet"):
        await system.register_edge_device(info("jetson.001"))
    with pytest.raises(NotRegisteredError):
        await system.get_device_status("nobody")
    with pytest.raises(NotRegisteredError):
        await system.get_device_performance_metrics("nobody")
    with pytest.raises(FlotillaError, match="cannot read"):
        await system.register_model_version(tmp_path / "none.onnx", {})
    torch = tmp_path / "best.pt"
    torch.write_bytes(b"PK\x03\x04")
    with pytest.raises(FlotillaError, match="PyTorch") as refused:
        await system.register_model_version(torch, {})
    assert "torch.onnx.export" in refused.value.remedy
    version = await system.register_model_version(model, {})
    with pytest.raises(BadInputError, match="deployment type 'magic'"):
        await system.create_deployment_job(version.version_id, ["jetson_001"], "magic")
    with pytest.raises(NotRegisteredError, match="nobody"):
        await system.create_deployment_job(version.version_id, ["jetson_001", "nobody"])
    with pytest.raises(BadInputError, match="no device"):
        await system.create_deployment_job(version.version_id, [])
    with pytest.raises(BadInputError, match="v20200101_000000_00000000"):
        await system.create_deployment_job("v20200101_000000_00000000", ["jetson_001"])
    for unknown in ("job-none", "../../etc/passwd"):
        with pytest.raises(JobNotFoundError):
            await system.get_deployment_status(unknown)
    with pytest.raises(BadInputError, match="UpdateStrategy"):
        await scheduler.schedule_update(version.version_id, ["jetson_001"], strategy="magic")
    assert await scheduler.cancel_update("sc-none") is False
    await scheduler.stop_scheduler()
    await system.shutdown()


def test_a_configuration_is_a_file_a_mapping_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"deployment:\n  base_dir: {tmp_path / 'here'}\n  max_concurrent_deployments: 2\n")
    system = EdgeModelDeploymentSystem(str(file))
    assert system.base_dir == tmp_path / "here"
    assert ModelDriftDetector(system).base_dir == system.base_dir
    assert EdgeModelDeploymentSystem().base_dir.name == "flotilla-data"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        EdgeModelDeploymentSystem(tmp_path / "none.yaml")
    file.write_text("- a list\n")
    with pytest.raises(ConfigurationError, match="sections"):
        EdgeModelDeploymentSystem(file)


def test_every_state_of_a_rollout_is_a_status() -> None:
    from fleet.jobs.records import job_status
    from fleet.rollouts.states import State

    found = {state: job_status({"state": state.value, "counts": {"total": 1, "committed": 1}}) for state in State}
    assert found[State.COMPLETED] is DeploymentStatus.COMPLETED
    assert found[State.ROLLED_BACK] is DeploymentStatus.ROLLED_BACK
    assert {found[State.ABORTED], found[State.FAILED]} == {DeploymentStatus.FAILED}
    assert found[State.RUNNING] is DeploymentStatus.IN_PROGRESS
