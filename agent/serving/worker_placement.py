"""Where onnxruntime put the nodes of a model, and what an accelerator's errors say in few words.

A model goes to an accelerator as a whole. What computes shapes stays on the CPU all the same: onnxruntime puts it
there on purpose, since the numbers are needed on that side, and most models whose batch is free have some of it.
Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

import re
from collections.abc import Iterable

#: Node types that onnxruntime computes on the CPU where their values are shapes. CUDA has all of them for tensors.
SHAPES = frozenset({
    "Shape", "Size", "Constant", "ConstantOfShape", "Identity", "Cast", "Range", "Gather", "GatherElements", "Slice",
    "Split", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand", "Tile", "Transpose", "Where",
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Floor", "Ceil", "Sqrt", "Pow", "CumSum",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not",
    "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "NonZero",
})  # fmt: skip

_MOST = 5  # nodes that a reason names
_MOST_CHARACTERS = 300
_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUDNN_FE|CUBLAS|CURAND|CUFFT) failure \d+: [^;]*[^;\s]")
#: CUDA's errors after which a process gets no other answer: memory or instructions that are not there, an assertion,
#: a run that hung, errors that the card could not correct.
_FOR_GOOD = frozenset(("214", "220", "700", "702", "710", "714", "715", "716", "717", "718", "719", "999"))
_NUMBER = re.compile(r"\bCUDA failure (\d+): ")
_PLACE = re.compile(r"/\S+\.(?:cc|cu|h):\d+ .*?\)(?: const)?(?: \[with .*?\])? ")
_LABEL = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SHORT = (
    "ailed to allocate memory",  # the card, or the host, has no more of it
    "Available memory of",  # the arena's limit: serving.gpu_memory_bytes
    "out of memory",
    "STATUS_ALLOC_FAILED",
)


def left_over(nodes: "Iterable[tuple[str, str]]") -> str:
    """Those of `nodes`, (type, name) of what the CPU got, that are no computing of shapes, for people; empty: none."""
    found = sorted({f"{kind} {name!r}" if name else kind for kind, name in nodes if kind not in SHAPES})
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def plain(error: BaseException) -> str:
    """What it says, without the places in onnxruntime's source that it went through."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    failure = _FAILURE.search(text)
    if failure is not None:
        return failure[0]
    text = _PLACE.sub("", _LABEL.split(text)[-1]).strip()
    return (text or type(error).__name__)[:_MOST_CHARACTERS]


def short_of_memory(text: str) -> bool:
    """Whether an error of an accelerator's says that its memory, or the bound for it, does not suffice."""
    return any(part in text for part in _SHORT)


def lost(text: str) -> bool:
    """Whether an error says that this process can use the GPU no more."""
    return any(number in _FOR_GOOD for number in _NUMBER.findall(text))
