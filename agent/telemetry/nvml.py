"""What NVIDIA's management library says of the first GPU, where it and `nvidia-ml-py` (the extra `nvml`) are there.

What a board does not support is left out (a Jetson knows few of the questions); a failure is told once.

I/O: disk.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Final

from shared.messages import HostMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

#: Bits of the library's event reasons that mean: slower than asked for.
BRAKES: Final[Mapping[int, str]] = {
    0x04: "gpu-power-cap",
    0x08: "gpu-slowdown",
    0x20: "gpu-thermal",
    0x40: "gpu-hw-thermal",
    0x80: "gpu-power-brake",
}


class Nvml:
    """Opened once. `library`: the module `pynvml`; None: found out."""

    def __init__(self, library: Any = None) -> None:
        self._library, self._gpu = library, None
        try:
            self._library = library or importlib.import_module("pynvml")
            self._library.nvmlInit()
            self._gpu = self._library.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:  # noqa: BLE001  # the library's own errors are no class before it is there
            logger.debug("no NVML error=%s", error)

    def read(self) -> HostMetrics:
        """Load, heat, power and clocks of the GPU now; nothing where there is none."""
        if self._gpu is None:
            return HostMetrics()
        ask = self._ask
        load = ask("nvmlDeviceGetUtilizationRates", lambda found: float(found.gpu) / 100)
        heat = ask("nvmlDeviceGetTemperature", float, 0)  # 0: the sensor of the GPU itself
        power = ask("nvmlDeviceGetPowerUsage", lambda milliwatts: float(milliwatts) / 1000)
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons", int)
        return HostMetrics(
            gpu_ratio=min(1.0, max(0.0, load)) if load is not None else None,
            temperature_celsius=heat,
            temperatures_celsius={} if heat is None else {"gpu": heat},
            rails_watts={} if power is None else {"GPU": round(power, 3)},
            throttled=tuple(name for bit, name in BRAKES.items() if int(reasons or 0) & bit),
        )

    def _ask(self, question: str, read: Callable[[Any], float], *more: int) -> float | None:
        try:
            return read(getattr(self._library, question)(self._gpu, *more))
        except Exception as error:  # noqa: BLE001  # not supported, driver gone, GPU lost: nothing of it costs a window
            logger.debug("NVML does not tell question=%s error=%s", question, error)
            return None
