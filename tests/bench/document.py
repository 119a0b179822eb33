"""The one form of every benchmark's result, printed as JSON or as lines for people."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `peer` holds other systems' figures from the same run."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    peer: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


def options(description: str) -> argparse.ArgumentParser:
    """What every benchmark understands; more may be added."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def arguments(description: str) -> argparse.Namespace:
    return options(description).parse_args()


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)


def tell(name: str, results: Sequence[Result], *, as_json: bool) -> int:
    """Print the results; 1 when a goal was missed."""
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    missed = [result for result in results if result.met is False]
    if as_json:
        rows: list[dict[str, Any]] = [asdict(result) | {"met": result.met} for result in results]
        print(json.dumps({"name": name, "machine": machine, "results": rows, "met": not missed}, indent=2))
    else:
        for result in results:
            goal = "" if result.goal is None else f"   goal {result.goal:g}: {'met' if result.met else 'MISSED'}"
            peers = "".join(f"   {peer} {value:g}" for peer, value in result.peer.items())
            print(f"{result.what:<58}{result.value:>10.1f} {result.unit}{goal}{peers}")
    return 1 if missed else 0
