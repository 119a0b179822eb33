"""For every test: asyncio is the only backend, onnxruntime reports to nobody, two processes share the work (ADR 37)."""

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, at its import
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as well; two that wait for each other take ten times as long for a model

_PROCESSES = 2  # each takes half a gigabyte, and starts managers, agents and browsers besides


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A process beside others has the folder `0` or `1`, not `popen-gw0`: the path of a socket has 107 bytes."""
    if beside := getattr(config, "workerinput", None):
        config.option.basetemp = str(Path(config.option.basetemp).with_name(beside["workerid"].removeprefix("gw")))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means: a few files are done before other processes have begun."""
    named = [argument for argument in config.args if argument.partition("::")[0].endswith(".py")]
    processes = min(_PROCESSES, len(os.sched_getaffinity(0)))
    return 0 if processes < 2 or 0 < len(named) <= 2 else processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that start real processes come first: they take longest, and the last one is waited for."""
    first = {item.path for item in items if item.get_closest_marker("flow")}
    items.sort(key=lambda item: item.path not in first)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting makes stays: the garbage collector need not look through it again and again.

    By its end numpy has read what is said above to it; the processes that tests start get the usual environment.
    """
    gc.disable()
    found = yield
    gc.enable()
    gc.collect()
    gc.freeze()
    os.environ.pop("OPENBLAS_NUM_THREADS", None)
    return found
