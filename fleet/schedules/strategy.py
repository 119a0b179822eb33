"""How an automatic update goes, from `scheduling.rollout_strategy` and `scheduling.batch_size`.

I/O: none.
"""

from collections.abc import Mapping
from typing import Any

from fleet.settings import SchedulingSettings


def fields(settings: SchedulingSettings, devices: int) -> Mapping[str, Any]:
    """Strategy and waves of `rollouts.plan.Request` for so many devices.

    A canary begins with a batch, and grows to a quarter, a half, all.
    """
    match settings.rollout_strategy:
        case "rolling":
            return {"strategy": "rolling", "batch_size": settings.batch_size}
        case "blue_green":
            return {"strategy": "blue-green"}
        case "canary":
            later = [percent for percent in (25, 50) if devices * percent / 100 > settings.batch_size]
            return {"strategy": "canary", "waves": [str(settings.batch_size), *(f"{it}%" for it in later), "100%"]}
