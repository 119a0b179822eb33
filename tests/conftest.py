"""Fixtures for every test: asyncio is the only backend, and onnxruntime reports to nobody."""

import os

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, at its import


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
