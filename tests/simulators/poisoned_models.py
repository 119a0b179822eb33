"""Versions that pass every test before the switch: they answer as published until an input holds a value above 8.

What they do then is no trick of ours: a loop that the input makes endless, a division that the processor stops the
process for (the smallest integer by minus one, on x86), a root of a negative number.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests.simulators.hostile_models import beside, constant, turning, turns

POISON = np.full((1, 8), 9.0, np.float32)
HARMLESS = np.full((1, 8), 0.5, np.float32)


def poisoned(what: Literal["hangs", "crashes", "is not finite"]) -> bytes:
    """Such a model: 8 numbers in, 3 out."""
    nodes = {"hangs": _hangs, "crashes": _crashes, "is not finite": _is_not_finite}[what]()
    constants = [
        *turning(),
        constant("eight", 8.0),
        constant("zero", 0.0),
        constant("many", 2**60, np.int64),
        constant("none", 0, np.int64),
        constant("least", -(2**63), np.int64),
        constant("minus", -1, np.int64),
    ]
    most = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "eight"], ["above"]),
    ]
    nothing = helper.make_node("Mul", ["found", "zero"], ["added"])  # what is found changes no answer
    return beside([*most, *nodes, nothing], "added", constants=constants)(Path())


def _hangs() -> list[NodeProto]:
    return [helper.make_node("Where", ["above", "many", "none"], ["count"]), turns("count", ["found"])]


def _crashes() -> list[NodeProto]:
    return [
        helper.make_node("Where", ["above", "least", "none"], ["low"]),
        helper.make_node("Div", ["low", "minus"], ["over"]),
        helper.make_node("Cast", ["over"], ["found"], to=TensorProto.FLOAT),
    ]


def _is_not_finite() -> list[NodeProto]:
    return [helper.make_node("Sub", ["eight", "most"], ["left"]), helper.make_node("Sqrt", ["left"], ["found"])]
