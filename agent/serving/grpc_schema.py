"""The protocol of inference.proto as message classes, made at run time: there is no generated code to keep.

A pool of our own, so that a stock client with the same package may live in the same process.

I/O: disk.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE: Final = Path(__file__).with_name("inference.proto")
_WORDS: Final = re.compile(r"[\w.]+|[{}();=<>,]|\"[^\"]*\"")
_SCALARS: Final = frozenset(
    {"bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64"},
)


@dataclass(frozen=True, slots=True)
class Method:
    """One remote procedure: message classes of what comes and what goes."""

    name: str
    request: Any
    response: Any
    streams: bool


@dataclass(frozen=True, slots=True)
class Protocol:
    """The service, by its full name, and its methods."""

    service: str
    methods: tuple[Method, ...]


def load() -> Protocol:
    """What the file beside this module describes."""
    described = describe(_FILE.read_text(encoding="utf-8"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    service = pool.FindServiceByName(f"{described.package}.{described.service[0].name}")
    return Protocol(
        service.full_name,
        tuple(
            Method(
                method.name,
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
                method.server_streaming,
            )
            for method in service.methods
        ),
    )


def describe(text: str) -> Any:
    """The descriptor of a file in the part of proto3 that inference.proto uses."""
    words = _Words(re.sub(r"//[^\n]*", "", text))
    described = descriptor_pb2.FileDescriptorProto(name=_FILE.name)
    for word in words:
        match word:
            case "syntax":
                words.expect("=")
                described.syntax = next(words).strip('"')
                words.expect(";")
            case "package":
                described.package = next(words)
                words.expect(";")
            case "message":
                _message(words, described.message_type.add())
            case "enum":
                _enumeration(words, described.enum_type.add())
            case "service":
                _service(words, described.service.add(), described.package)
            case _:
                raise ValueError(f"{word!r} is not understood here")
    return described


class _Words(Iterator[str]):
    def __init__(self, text: str) -> None:
        self._words = _WORDS.findall(text)
        self._at = 0

    def __next__(self) -> str:
        if self._at >= len(self._words):
            raise StopIteration
        self._at += 1
        return str(self._words[self._at - 1])

    def expect(self, *wanted: str) -> None:
        for word in wanted:
            found = next(self, "the end")
            if found != word:
                raise ValueError(f"{word!r} is expected, not {found!r}")

    def until(self, last: str) -> Iterator[str]:
        return iter(self.__next__, last)


def _message(words: _Words, message: Any, oneof: int | None = None) -> None:
    """Fill `message` up to its closing brace; with `oneof`, that part of it."""
    if oneof is None:
        message.name = next(words)
        words.expect("{")
    for word in words.until("}"):
        match word:
            case "message":
                _message(words, message.nested_type.add())
            case "oneof":
                message.oneof_decl.add(name=next(words))
                words.expect("{")
                _message(words, message, len(message.oneof_decl) - 1)
            case _:
                field = _field(words, word, message)
                if oneof is not None:
                    field.oneof_index = oneof


def _field(words: _Words, word: str, message: Any) -> Any:
    field = message.field.add(label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if word == "repeated":
        field.label, word = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED, next(words)
    if word == "map":
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        words.expect("<", "string", ",")
        value = next(words)
        words.expect(">")
        field.name = next(words)
        word = "".join(part.capitalize() for part in field.name.split("_")) + "Entry"
        entry = message.nested_type.add(name=word, options=descriptor_pb2.MessageOptions(map_entry=True))
        for number, (name, kind) in enumerate((("key", "string"), ("value", value)), start=1):
            part = entry.field.add(name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
            _type(part, kind)
    else:
        field.name = next(words)
    _type(field, word)
    words.expect("=")
    field.number = int(next(words))
    words.expect(";")
    return field


def _type(field: Any, word: str) -> None:
    if word in _SCALARS:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{word.upper()}")
    else:
        field.type_name = word  # relative: the pool finds it, and whether it is a message or an enumeration


def _enumeration(words: _Words, enumeration: Any) -> None:
    enumeration.name = next(words)
    words.expect("{")
    for name in words.until("}"):
        words.expect("=")
        enumeration.value.add(name=name, number=int(next(words)))
        words.expect(";")


def _service(words: _Words, service: Any, package: str) -> None:
    service.name = next(words)
    words.expect("{")
    for word in words.until("}"):
        if word != "rpc":
            raise ValueError(f"{word!r} is not understood in a service")
        method = service.method.add(name=next(words))
        method.input_type, method.client_streaming = _side(words, package)
        words.expect("returns")
        method.output_type, method.server_streaming = _side(words, package)
        words.expect(";")


def _side(words: _Words, package: str) -> tuple[str, bool]:
    words.expect("(")
    name = next(words)
    streams = name == "stream"
    if streams:
        name = next(words)
    words.expect(")")
    return f".{package}.{name}", streams
