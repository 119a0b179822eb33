"""All that is remembered of one release: the newest hours of every scope, its ordinary days, what it is compared with.

I/O: none.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet.telemetry import looking
from fleet.telemetry.calibrated import WINDOWS
from fleet.telemetry.dispersion import Dispersion, learn
from fleet.telemetry.finding import FLEET, Finding, level
from fleet.telemetry.layout import Layout
from fleet.telemetry.looking import Looked, Needs
from fleet.telemetry.rings import Ring
from fleet.telemetry.vectors import HOURS_A_DAY

Vector = NDArray[np.int64]
Getter = Callable[[Ring, Sequence[str]], NDArray[np.int64]]
#: Scopes of one round of statistics: bounds the memory of a look.
ROUND: Final = 256
#: Of a group's limit, where some of its devices explain that it rings.
EXPLAINED: Final = 0.01


class Board:
    """The memory of one release. Belongs to one task."""

    def __init__(self, model: str, version: str, layout: Layout, days: int) -> None:
        self.model, self.version, self.layout = model, version, layout
        self._rings = {"device": Ring(layout.size, np.uint32), "group": Ring(layout.size, np.int64)}
        self._number = days
        self._days: dict[str, dict[int, Vector]] = {}
        self._chosen: dict[str, Vector | None] = {}
        self._changed: set[str] = set()
        self._arrived: dict[str, int] = {}  # counts that came within this hour, and of them those looked at
        self._looked: dict[str, int] = {}
        self._floors: dict[tuple[str, str], int] = {}
        self._hour = 0
        self._spread: Dispersion | None = None
        self._rows: dict[str, int] = {}

    @property
    def scopes(self) -> list[str]:
        """Every scope with counts."""
        return [name for ring in self._rings.values() for name in ring.names]

    def advance(self, hour: int) -> None:
        """It is `hour` now. A new hour moves every window, a new day teaches the dispersion."""
        if not all([ring.advance(hour) for ring in self._rings.values()]):  # noqa: C419 - both must move
            return
        if hour // HOURS_A_DAY != self._hour // HOURS_A_DAY:
            self._spread = None
        self._hour = hour
        self._changed.update(self.scopes)
        self._looked.clear()
        self._arrived.clear()

    def add(self, scopes: Iterable[str], hour: int, vector: Vector) -> None:
        """Counts of one device in one hour, to each of its scopes."""
        for scope in scopes:
            self.add_hour(scope, hour, vector)
            self.add_day(scope, hour // HOURS_A_DAY, vector)

    def add_hour(self, scope: str, hour: int, vector: Vector) -> None:
        """Counts of one hour, without those of its day."""
        self._ring(scope).add(scope, hour, vector)
        self._changed.add(scope)
        self._arrived[scope] = self._arrived.get(scope, 0) + int(vector.sum())

    def add_day(self, scope: str, day: int, vector: Vector) -> None:
        """Counts of one day, which joins the ordinary days while these are fewer than they should be."""
        if scope in self._chosen:
            return
        known = self._days.setdefault(scope, {})
        if day in known:
            known[day] = known[day] + vector
        elif len(known) < self._number or day < max(known):
            known[day] = vector.copy()
            if len(known) > self._number:
                del known[max(known)]

    def choose(self, scope: str, vector: Vector | None, days: Mapping[int, Vector]) -> None:
        """Somebody chose what `scope` is compared with (None: the release's own) and which days are ordinary."""
        self._chosen[scope], self._days[scope] = vector, dict(days)
        self._spread = None
        self._changed.update(self.scopes)
        self._looked.clear()

    def forget(self, scopes: Sequence[str]) -> None:
        """The release no longer serves there."""
        for scope in scopes:
            self._ring(scope).forget(scope)
            for kept in (self._days, self._chosen, self._looked, self._arrived):
                kept.pop(scope, None)
            self._changed.discard(scope)
        gone = set(scopes)
        self._floors = {key: hour for key, hour in self._floors.items() if key[0] not in gone}

    def start_anew(self, scope: str, feature: str, hour: int) -> None:
        """What was up to this hour is over: alarms look at windows that begin later."""
        self._floors[scope, feature] = hour

    def due(self) -> list[str]:
        """Scopes to look at: a new hour came, or what came within the hour doubled since the last look."""
        found = []
        for scope in sorted(self._changed):
            now = self._arrived.get(scope, 0)
            if scope not in self._looked or now >= 2 * self._looked[scope]:
                self._looked[scope] = now
                found.append(scope)
        self._changed.difference_update(found)
        return found

    def look(self, scopes: Sequence[str], needs: Needs, drifted: Collection[tuple[str, str]]) -> list[Finding]:
        """Everything about these scopes; `drifted` (scope, feature) teach no dispersion."""
        if self._spread is None:
            self._learn(drifted)
        found: list[Finding] = []
        for start in range(0, len(scopes), ROUND):
            found += looking.findings(self._looked_at(scopes[start : start + ROUND]), needs)
        return found

    def rings_without(self, group: str, devices: Sequence[str], feature: str, needs: Needs) -> bool:
        """True when `group` would raise its alarm without these devices, too, and hardly by chance.

        They explain that it rings. With the limit of a group that nothing explains, every twentieth bad device would
        lose its alert behind a false one of its fleet.
        """
        looked = self._looked_at([group])
        rest = looked.windows - self._windows(devices).sum(axis=0, keepdims=True)
        strict = replace(needs, limits={name: limit * EXPLAINED for name, limit in needs.limits.items()})
        return looking.rings(replace(looked, windows=np.maximum(rest, 0)), feature, strict)

    def _looked_at(self, scopes: Sequence[str]) -> Looked:
        return Looked(
            model=self.model,
            version=self.version,
            scopes=scopes,
            layout=self.layout,
            windows=self._windows(scopes),
            recent=self._recent(scopes),
            reference=self._reference(scopes),
            spread=self._spread_of(scopes),
            usable=self._usable(scopes),
        )

    def _usable(self, scopes: Sequence[str]) -> NDArray[np.bool_]:
        """False for windows that begin before a drift was over."""
        usable = np.ones((len(scopes), len(WINDOWS), len(self.layout.names)), dtype=np.bool_)
        rows = {scope: row for row, scope in enumerate(scopes)}
        for (scope, name), floor in self._floors.items():
            if scope in rows:
                usable[rows[scope], :, self.layout.names.index(name)] = np.array(WINDOWS) <= self._hour - floor
        return usable

    def _learn(self, drifted: Collection[tuple[str, str]]) -> None:
        """Dispersion of every scope, and one row for those that nothing is known of."""
        today = self._hour // HOURS_A_DAY
        scopes = [scope for scope, days in self._days.items() if any(day < today for day in days)]
        days = np.zeros((len(scopes) + 1, self._number, self.layout.size), dtype=np.int64)
        believed = np.ones((len(scopes) + 1, len(self.layout.names)), dtype=np.bool_)
        for row, scope in enumerate(scopes):
            for place, day in enumerate(sorted(day for day in self._days[scope] if day < today)[: self._number]):
                days[row, place] = self._days[scope][day]
            believed[row] = [(scope, name) not in drifted for name in self.layout.names]
        devices = np.array([*(level(scope) == "device" for scope in scopes), False], dtype=np.bool_)
        self._spread = learn(days, self.layout, believed=believed, devices=devices)
        self._rows = {scope: row for row, scope in enumerate(scopes)}

    def _spread_of(self, scopes: Sequence[str]) -> Dispersion:
        if self._spread is None:
            return Dispersion.none(len(scopes), len(self.layout.names))
        unknown = len(self._rows)
        return self._spread.of(np.array([self._rows.get(scope, unknown) for scope in scopes], dtype=np.int64))

    def _reference(self, scopes: Sequence[str]) -> NDArray[np.int64]:
        """What each scope is compared with: its own choice, else the fleet's, else the release's."""
        shared = self._chosen.get(FLEET)
        release = self.layout.vector if shared is None else shared
        chosen = [self._chosen.get(scope) for scope in scopes]
        return np.stack([release if one is None else one for one in chosen])

    def _windows(self, scopes: Sequence[str]) -> NDArray[np.int64]:
        return self._gathered(scopes, lambda ring, names: ring.windows(names))

    def _recent(self, scopes: Sequence[str]) -> NDArray[np.int64]:
        return self._gathered(scopes, lambda ring, names: ring.recent(names, HOURS_A_DAY))

    def _gathered(self, scopes: Sequence[str], get: Getter) -> NDArray[np.int64]:
        kinds = np.array([level(scope) == "device" for scope in scopes], dtype=np.bool_)
        devices = get(self._rings["device"], [scope for scope in scopes if level(scope) == "device"])
        groups = get(self._rings["group"], [scope for scope in scopes if level(scope) != "device"])
        found = np.zeros((len(scopes), *devices.shape[1:]), dtype=np.int64)
        found[kinds], found[~kinds] = devices, groups
        return found

    def _ring(self, scope: str) -> Ring:
        return self._rings["device" if level(scope) == "device" else "group"]
