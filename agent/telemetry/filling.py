"""What one source does not know of the machine, another may.

I/O: none.
"""

from typing import Any, Final

from shared.messages import HostMetrics

_NOTHING: Final[tuple[Any, ...]] = (None, (), {})


def lacks(found: HostMetrics) -> bool:
    """Whether something is missing that a Jetson's own tool would tell."""
    return found.gpu_ratio is None or not found.rails_watts or not found.temperatures_celsius


def filled(found: HostMetrics, more: HostMetrics) -> HostMetrics:
    """`found`, and of `more` what it does not have; what was found is never replaced."""
    missing = [name for name in HostMetrics.model_fields if getattr(found, name) in _NOTHING]
    return found.model_copy(update={name: getattr(more, name) for name in missing})
