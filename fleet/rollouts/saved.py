"""The JSON form of a rollout in the database, and back.

I/O: none.
"""

from typing import Any, Final

from pydantic import TypeAdapter

from fleet.rollouts.states import Rollout

_FORM: Final = TypeAdapter(Rollout)


def to_json(rollout: Rollout) -> dict[str, Any]:
    """`from_json(to_json(r)) == r`."""
    found: dict[str, Any] = _FORM.dump_python(rollout, mode="json")
    return found


def from_json(body: dict[str, Any]) -> Rollout:
    """Inverse of `to_json`.

    Raises:
        ValueError: not written by us.
    """
    return _FORM.validate_python(body)
