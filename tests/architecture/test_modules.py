"""What each module promises and what it does: effects, borders between packages, size."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("agent", "fleet", "shared")
SOURCES = sorted(
    path
    for package in OURS
    for path in (ROOT / package).rglob("*.py")
    if "__pycache__" not in path.parts and "versions" not in path.parts  # migrations are a record, not a design
)
EFFECTS = {
    "network": {
        "socket",
        "ssl",
        "httpx2",
        "paho",
        "amqtt",
        "uvicorn",
        "http.client",
        "http.server",
        "urllib.request",
        "websockets",
    },
    "disk": {"os", "shutil", "sqlite3", "tempfile", "mmap", "fcntl", "glob"},
    "process": {"subprocess", "multiprocessing", "signal"},
    "tasks": {"asyncio"},
    "clock": {"time"},
    "chance": {"random", "secrets", "uuid"},
}
WORDS = set(EFFECTS)
#: Reading the clock without importing `time`.
CLOCK_CALLS = re.compile(r"\b(?:datetime|date)\.(?:now|utcnow|today)\(")
#: A `Path` is a value until one of these is asked of it.
PATH_CALLS = re.compile(
    r"\.(?:read_text|read_bytes|write_text|write_bytes|open|exists|is_file|is_dir|is_symlink|mkdir|rmdir|unlink|touch|chmod"
    r"|iterdir|glob|rglob|stat|lstat|resolve|absolute|home|cwd|expanduser|samefile|symlink_to|readlink)\("
)
#: Types and pure functions that live in a module with effects.
VALUES = {"shared.clock.Clock", "shared.clock.rfc3339"}
HARD_LIMIT = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def name_of(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(parts)


MODULES = {name_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(tree: ast.Module) -> set[str]:
    """Full names, without those that only type checkers import."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=other):
                pending += other
                continue
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                full = {f"{module}.{alias.name}" for alias in names}
                found |= full if full <= VALUES else {module} | full
        pending += ast.iter_child_nodes(node)
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imported(tree_of(path)) if name in MODULES}


def promise(path: Path) -> set[str] | None:
    text = ast.get_docstring(tree_of(path)) or ""
    found = re.search(r"I/O: ([a-z, ]+)\.\Z", text)
    return set(found[1].split(", ")) if found else None


def effects(path: Path) -> set[str]:
    names = imported(tree_of(path))
    tops = names | {name.partition(".")[0] for name in names}
    used = {effect for effect, modules in EFFECTS.items() if modules & tops}
    text = path.read_text(encoding="utf-8")
    if CLOCK_CALLS.search(text):
        used.add("clock")
    if "pathlib" in tops and PATH_CALLS.search(text):
        used.add("disk")
    return used


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


CODE = [pytest.param(path, id=name) for name, path in MODULES.items() if not is_package(path)]
PACKAGES = [pytest.param(path, id=name) for name, path in MODULES.items() if is_package(path)]


@pytest.mark.parametrize("path", CODE)
def test_module_does_only_the_io_that_its_docstring_declares(path):
    declared = promise(path)
    assert declared, "end the module docstring with 'I/O: none.' or name its effects"
    assert declared == {"none"} or declared <= WORDS, f"words are none, or {sorted(WORDS)}"
    assert effects(path) <= declared, f"it also does {sorted(effects(path) - declared)}"


@pytest.mark.parametrize("path", [p for p in CODE if promise(p.values[0]) == {"none"}])
def test_pure_module_imports_only_pure_modules_of_ours(path):
    impure = {name for name in ours(path) if not is_package(MODULES[name]) and promise(MODULES[name]) != {"none"}}
    assert not impure


@pytest.mark.parametrize("path", PACKAGES)
def test_package_file_holds_only_a_docstring(path):
    tree = tree_of(path)
    assert len(ast.get_docstring(tree) or "") > 20, "draw the flow and the reading order"
    assert len(tree.body) == 1


@pytest.mark.parametrize("path", CODE)
def test_the_two_sides_meet_only_in_shared(path):
    side = path.relative_to(ROOT).parts[0]
    allowed = {"agent": {"agent", "shared"}, "fleet": {"fleet", "shared"}, "shared": {"shared"}}[side]
    assert {name.partition(".")[0] for name in imported(tree_of(path)) if name.partition(".")[0] in OURS} <= allowed


def test_only_the_link_knows_the_mqtt_library():
    knowing = {name for name, path in MODULES.items() if any(n.startswith("paho") for n in imported(tree_of(path)))}
    assert knowing == {"shared.mqtt_link"}


@pytest.mark.parametrize("path", CODE)
def test_module_is_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= HARD_LIMIT


def test_nothing_has_a_vague_name():
    assert not {name for name in MODULES if name.rpartition(".")[2] in VAGUE}


@pytest.mark.parametrize("path", CODE)
def test_no_task_is_started_outside_of_a_group(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"asyncio\.(create_task|ensure_future)\(|loop\.create_task\(", text)


@pytest.mark.parametrize("path", CODE + PACKAGES)
def test_nothing_is_left_for_later(path):
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))
