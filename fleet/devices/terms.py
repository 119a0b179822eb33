"""How a device shall go about an assignment, beside what it is to run.

I/O: none.
"""

from dataclasses import dataclass
from typing import Any, Final

from shared import shadow as comparison
from shared.windows import Window


@dataclass(frozen=True, slots=True)
class Terms:
    """Only what is not usual is written, so that agents that know nothing else read the rest."""

    window: Window | None = None  # swap inside it only
    keep_versions: int | None = None  # of the model, on this device
    shadow: comparison.Terms | None = None  # look on first beside what serves

    def custom(self) -> dict[str, Any]:
        """The keys that it adds to `custom` of the assignment."""
        said: dict[str, Any] = {}
        if self.window is not None:
            said["window"] = self.window.model_dump(mode="json", exclude_defaults=True)
        if self.keep_versions is not None:
            said["keep_versions"] = self.keep_versions
        if self.shadow is not None:
            said["shadow"] = self.shadow.model_dump_json()  # signed documents hold no fractions
        return said


#: At once, and as many versions as there are slots.
AT_ONCE: Final = Terms()
