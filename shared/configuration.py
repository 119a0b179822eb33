"""Read settings: overrides (flags) > environment > YAML file > default, and know where each came from.

    agent.yaml --compose--> nodes with lines -.
    FLOTILLA_SECTION__KEY=... ----------------+--> one tree + origins --> pydantic --> Loaded
    overrides ("section.key": value) ---------'

What is unknown or has a bad value is an error that names file, line, key and what is allowed.

I/O: disk.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import BadInputError

S = TypeVar("S", bound=BaseModel)
Key = tuple[str, ...]
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 16
DEFAULT: Final = "default"
#: Values of such keys are never repeated in an error.
_SECRET: Final = re.compile(r"password|secret|token|url")


class ConfigurationError(BadInputError):
    """A setting is unknown or has a value that is not allowed."""

    code = "E_CONFIG"


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Settings, and for each dotted key where its value came from (`default` is not listed)."""

    settings: S
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """Where the value of the dotted `key` came from: of itself or of what it is part of."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            if (found := self.origins.get(".".join(parts[:end]))) is not None:
                return found
        return DEFAULT

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """(dotted key, value, origin) of every setting, in the order of the classes."""
        for key, value in _leaves(self.settings.model_dump(mode="json"), ()):
            yield ".".join(key), value, self.origin(".".join(key))


@dataclass(slots=True)
class _Tree:
    """Values gathered so far; later ones win."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    def put(self, key: Key, value: object, origin: str) -> None:
        inside = self.values
        for part in key[:-1]:
            following = inside.get(part)
            if not isinstance(following, dict):
                following = inside[part] = {}
            inside = following
        inside[key[-1]] = value
        for known in [known for known in self.origins if known[: len(key)] == key]:
            del self.origins[known]
        self.origins[key] = origin


def load(
    cls: type[S],
    path: Path | None,
    *,
    prefix: str = "FLOTILLA_",
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded[S]:
    """The settings of `cls`. `overrides` maps dotted keys to values; None values are left out.

    Raises:
        ConfigurationError: the file cannot be read, a key is unknown, or a value is not allowed.
    """
    tree = _Tree()
    lines: dict[Key, str] = {}
    if path is not None:
        _read_file(path, tree, lines)
    _read_environment(cls, os.environ if environment is None else environment, prefix, tree)
    for dotted, value in (overrides or {}).items():
        if value is not None:
            tree.put(tuple(dotted.split(".")), value, "flag")
    try:
        settings = cls.model_validate(tree.values)
    except ValidationError as error:
        raise _explained(cls, error, tree, lines, prefix) from None
    return Loaded(settings, {".".join(key): origin for key, origin in tree.origins.items()})


def _read_file(path: Path, tree: _Tree, lines: dict[Key, str]) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", remedy="give another file with --config"
        ) from None
    if len(text) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: longer than {MAX_FILE_BYTES} bytes")
    try:
        for event in yaml.parse(text.decode(), Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # a few of them can stand for gigabytes
                where = f"{path}:{event.start_mark.line + 1 if event.start_mark else '?'}"
                raise ConfigurationError(f"{where}: aliases (*{event.anchor}) are not taken", remedy="write it out")
        root = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
        if root is not None:
            _walk(path, root, (), tree, lines)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigurationError(f"{path}{line}: not YAML: {error.problem}", remedy="mind indents and colons") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from None


def _walk(path: Path, node: yaml.Node, key: Key, tree: _Tree, lines: dict[Key, str]) -> None:
    """Take the mapping `node` apart into keys with their lines."""
    place = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise ConfigurationError(f"{place}: a list of `key: value` is expected here, as in `log_level: info`")
    if len(key) >= MAX_DEPTH:
        raise ConfigurationError(f"{place}: nested deeper than {MAX_DEPTH}")
    seen: set[str] = set()
    for name_node, value_node in node.value:
        place = f"{path}:{name_node.start_mark.line + 1}"
        name = str(name_node.value)
        if name in seen:
            raise ConfigurationError(f"{place}: {'.'.join((*key, name))} is given twice", remedy="delete one")
        seen.add(name)
        inner = (*key, name)
        lines[inner] = place
        if isinstance(value_node, yaml.MappingNode):
            _walk(path, value_node, inner, tree, lines)
        else:
            tree.put(inner, _value(value_node, 0), place)


def _value(node: yaml.Node, depth: int) -> object:
    """What a node without keys says."""
    if depth > MAX_DEPTH:
        raise RecursionError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(name.value): _value(item, depth + 1) for name, item in node.value}
    return yaml.safe_load(yaml.serialize(node))


def _read_environment(cls: type[BaseModel], environment: Mapping[str, str], prefix: str, tree: _Tree) -> None:
    """`PREFIX_A__B=x` sets a.b. Names whose first part is no setting belong to somebody else."""
    for name in sorted(environment):
        key = tuple(name.removeprefix(prefix).lower().split("__"))
        if name.startswith(prefix) and key[0] in cls.model_fields:
            text = environment[name]
            try:
                value = yaml.safe_load(text) if text else ""
            except yaml.YAMLError:
                value = text
            tree.put(key, value, f"environment {name}")


def _explained(
    cls: type[BaseModel], error: ValidationError, tree: _Tree, lines: dict[Key, str], prefix: str
) -> ConfigurationError:
    found = error.errors(include_url=False)[0]
    key, places = _key(tree.values, found["loc"]), tree.origins | lines
    place = next((places[key[:end]] for end in range(len(key), 0, -1) if key[:end] in places), "settings")
    name = ".".join(key) or "settings"
    return ConfigurationError(f"{place}: {name}: {_what(key, found)}", remedy=_remedy(cls, key, found, prefix))


def _key(values: Mapping[str, Any], places: Iterable[int | str]) -> Key:
    """Where the operator wrote it: without the words by which pydantic tells kinds of a section apart."""
    inside: object = values
    key: list[str] = []
    parts = [str(part) for part in places]
    for number, part in enumerate(parts, 1):
        if isinstance(inside, dict) and part not in inside and number < len(parts):
            continue
        inside = inside.get(part) if isinstance(inside, dict) else None
        key.append(part)
    return tuple(key)


def _what(key: Key, found: ErrorDetails) -> str:
    if found["type"] == "extra_forbidden":
        return "there is no such setting"
    said = f"{found['msg'][0].lower()}{found['msg'][1:]}"
    if isinstance(found["input"], dict) or any(_SECRET.search(part) for part in key[-2:]):
        return said  # a whole section may hold a secret
    shown = repr(found["input"])
    return f"{said}, not {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _remedy(cls: type[BaseModel], key: Key, found: ErrorDetails, prefix: str) -> str:
    if found["type"] != "extra_forbidden":
        return f"correct the value here or in {prefix}{'__'.join(key).upper()}"
    section: type[BaseModel] | None = cls
    for part in key[:-1]:
        section = _section(section, part) if section is not None else None
    if section is None:
        return "delete it, or look for its right name in the documentation"
    names = sorted(section.model_fields)
    close = get_close_matches(key[-1], names, n=1)
    return f"did you mean {close[0]}?" if close else f"allowed here: {', '.join(names)}"


def _section(cls: type[BaseModel], name: str) -> type[BaseModel] | None:
    described = cls.model_fields.get(name)
    kind = described.annotation if described is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _leaves(value: object, key: Key) -> Iterator[tuple[Key, object]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*key, str(name)))
    else:
        yield key, value
