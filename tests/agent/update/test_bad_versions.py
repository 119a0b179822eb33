"""Versions that pass the self-test and are bad all the same, on a real endpoint under a paced load."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.settings import ServingSettings
from shared.messages import Phase
from tests.bench import faults
from tests.simulators.poisoned_models import poisoned
from tests.simulators.release_repository import ReleaseRepository, tiny_model
from tests.simulators.serving_device import ServingDevice
from tests.simulators.updating_device import with_settings

needs_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86 stops a process that divides so")
SETTINGS = with_settings(probation_seconds=10, probation_requests=1000)
ENDPOINT = ServingSettings(http_port=0, grpc_port=None, request_timeout_seconds=faults.HANG_SECONDS)


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("hangs", "E_PROBATION_CRASH", "its worker hung on a request"),
        pytest.param("crashes", "E_PROBATION_CRASH", "its worker crashed on a request (SIGFPE)", marks=needs_x86),
        ("is not finite", "E_PROBATION_OUTPUT", "not-finite"),
    ],
)
async def test_no_request_fails_the_version_before_serves_and_the_reason_is_told(
    tmp_path: Path, repository: ReleaseRepository, what: str, code: str, said: str
) -> None:
    device = ServingDevice(tmp_path, repository, faults.QUICK, serving_settings=ENDPOINT)
    case = faults.Case(what, poisoned(what), code, requests=[*[faults.USUAL] * 49, faults.DEADLY])
    async with device.on():
        await faults.install(device, repository, "1.0.0", tiny_model(0))
    device = replace(device, settings=SETTINGS, reports=[], marks=[])
    async with device.on():
        seen = await faults.endure(device, repository, "1.1.0", case)
    assert seen.load.failed == 0
    assert seen.served
    assert (seen.report.phase, seen.report.reason) == (Phase.ROLLED_BACK, code)
    assert said in (seen.report.detail or "")
