"""The buttons of a rollout, and what each of them costs, in numbers, before the click.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final

from fleet.dashboard import drawing
from fleet.rollouts.progress import CountsView, RolloutView
from shared.messages import Phase

_ACTIONS: Final = (
    # verb, word, symbol, tone, needs a dialog
    ("approve", "Approve", "play", "pri", False),
    ("pause", "Pause", "pause", "", False),
    ("resume", "Resume", "play", "pri", False),
    ("promote", "Promote now", "arrow", "", True),
    ("abort", "Stop", "x", "bad", True),
    ("rollback", "Roll back", "undo", "bad", True),
)
#: Stopping and going back are two buttons; the API's abort alone would choose by the rollout's own setting.
_BODY: Final = {"abort": '{"rollback": false}'}
_FLAG: Final = {"abort": " --keep"}


@dataclass(frozen=True, slots=True)
class Action:
    """A button: what it does, and what it costs."""

    verb: str
    word: str
    symbol: str
    tone: str
    dialog: bool
    title: str
    costs: tuple[str, ...]
    command: str
    body: str  # JSON of the request


def actions(view: RolloutView) -> tuple[Action, ...]:
    """What may be asked of the rollout now."""
    return tuple(_action(item, view) for item in _ACTIONS if item[0] in view.actions)


def _action(item: tuple[str, str, str, str, bool], view: RolloutView) -> Action:
    verb, word, symbol, tone, dialog = item
    title, costs = _costs(verb, view)
    return Action(
        verb,
        word,
        symbol,
        tone,
        dialog,
        title,
        costs,
        f"flotilla rollout {verb} {view.id}{_FLAG.get(verb, '')}",
        _BODY.get(verb, ""),
    )


def _costs(verb: str, view: RolloutView) -> tuple[str, tuple[str, ...]]:
    """The question of the dialog, and the consequences in numbers."""
    counts, back = view.counts, ", ".join(view.previous) or "the version before"
    many = drawing.many
    match verb:
        case "promote":
            return _promotion(view)
        case "abort":
            keep = (f"{many(counts.committed, 'device')} keep {view.version}",) if counts.committed else ()
            return f"Stop {view.id} where it is?", (
                *keep,
                f"{many(counts.running, 'device')} under way finish on their own"
                if counts.running
                else "none is under way",
                f"{many(_untouched(counts), 'device')} are not touched",
            )
        case "rollback":
            return f"Roll back {view.id} to {back}?", (
                f"{many(counts.committed, 'device')} go back to {back}, from the other slot where it still holds it",
                f"{many(counts.running, 'device')} under way are called back"
                if counts.running
                else "none is under way",
                f"{many(_untouched(counts), 'device')} are not touched",
            )
        case _:
            return "", ()


def _promotion(view: RolloutView) -> tuple[str, tuple[str, ...]]:
    """Of the bake, or of the shadow where devices are in it."""
    gates = "the gates still hold: one that fails stops the rollout"
    if looking := sum(one.state == Phase.SHADOWING for one in view.deployments):
        devices = drawing.many(looking, "device")
        return "End the shadow?", (f"{devices} for the swap now", "later waves compare nothing", gates)
    ahead = next((wave for wave in view.waves if wave.state == "waiting"), None)
    gain = "no wave is left"
    if ahead is not None:
        gain = f"{ahead.name}: {drawing.many(ahead.total, 'more device')} get {view.version}"
    return "Skip the rest of this wave's bake?", (gain, gates)


def _untouched(counts: CountsView) -> int:
    return counts.queued + counts.untouched
