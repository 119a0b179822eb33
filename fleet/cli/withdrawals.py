"""What a withdrawal does, whom it leaves with the release, and what to type for them.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_MOST: Final = 20


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """The answer of the manager, for people; the same before and after."""
    release, back = f"{found['model']}@{found['version']}", set(found["reverses"])
    said = [f"{release} is given to no device any more." if not found["dry_run"] else f"{release} would be withdrawn:"]
    said += [f"  stops    {name}: devices on their way are called back" for name in found["stops"] if name not in back]
    said += [f"  reverses {name}: its devices go back to the version before" for name in found["reverses"]]
    said += [f"  told     {name} was away; it gets the order to stay as it is" for name in found["told"]]
    said += [_server(one, back) for one in found["serving"][:_MOST]]
    if len(found["serving"]) > _MOST:
        said.append(f"  serves   on {len(found['serving']) - _MOST} more devices: --json has all of them")
    model = found["model"]
    said += [
        f"  alias    {name} stands for it: flotilla model alias {model} {name} VERSION" for name in found["aliases"]
    ]
    said += [f"  schedule {name} will be refused: flotilla schedule cancel {name}" for name in found["schedules"]]
    return said


def question(found: Mapping[str, Any]) -> str:
    """What is asked before it is done."""
    going = sum(one["by"] in found["reverses"] for one in found["serving"])
    counted = (
        (len(found["stops"]), "1 rollout stops", "rollouts stop"),
        (going, "1 device goes back", "devices go back"),
        (len(found["serving"]) - going, "1 device keeps it", "devices keep it"),
    )
    parts = [one if number == 1 else f"{number} {many}" for number, one, many in counted if number]
    return f"{found['model']}@{found['version']}: {', '.join(parts) or 'no device has it'}. Withdraw it?"


def state(row: Mapping[str, Any]) -> str:
    """A version's state in one word; a retired one that was withdrawn before is withdrawn."""
    return "withdrawn" if row.get("withdrawn") else str(row["state"])


def portrait(found: Mapping[str, Any]) -> Sequence[str]:
    """Lines of `model show`: why nobody gets the version any more, and who has it."""
    withdrawn, serving = found.get("withdrawn"), found.get("serving", ())
    told = [f"  withdrawn  {withdrawn['at']} by {withdrawn['by']}: {withdrawn['reason']}"] if withdrawn else []
    names = ", ".join(serving[:5]) + (", ..." if len(serving) > 5 else "")
    devices = "1 device" if len(serving) == 1 else f"{len(serving)} devices"
    return [*told, f"  serves on  {devices}: {names}"] if serving else told


def _server(one: Mapping[str, Any], back: set[str]) -> str:
    device = one["device"]
    if one["by"] in back:
        return f"  serves   on {device}, which goes back by {one['by']}"
    if one["back_to"] is not None:
        return f"  serves   on {device}: flotilla device rollback {device} (to {one['back_to']})"
    return (
        f"  serves   on {device}, which holds no other version: flotilla rollout start MODEL@VERSION --target {device}"
    )
