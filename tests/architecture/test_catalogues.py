"""What is promised in docs is what exists: error codes, topics, fields, commands, the lock file."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fleet.cli.__main__ import cli
from shared import messages, topics
from shared.messages import Message
from tests.architecture.test_modules import MODULES, ROOT, tree_of

DOCS = ROOT / "docs"
#: What click's parser leaves for an argument that was not given.
UNSET = getattr(click.core, "UNSET", None)
CODE_FORM = re.compile(r"E_[A-Z][A-Z0-9_]*[A-Z0-9]")


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def declared_codes() -> Counter[str]:
    """Codes of classes: `code = "E_..."`, with or without a type."""
    found: Counter[str] = Counter()
    for path in MODULES.values():
        for node in ast.walk(tree_of(path)):
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code)))
                    | ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(code)))
                ):
                    found[code] += 1
    return found


def used_codes() -> set[str]:
    """Every text in the code that is a code, docstrings aside."""
    return {
        node.value
        for path in MODULES.values()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE_FORM.fullmatch(node.value)
    }


def test_no_two_error_classes_share_a_code():
    assert [code for code, number in declared_codes().items() if number > 1] == []


def test_docs_list_every_error_code_and_no_other():
    listed = re.findall(r"^\| `(E_[A-Z0-9_]+)` \|", text_of("errors.md"), re.MULTILINE)
    assert sorted(used_codes() - set(listed)) == [], "add them to docs/errors.md"
    assert sorted(set(listed) - used_codes()) == [], "nothing uses them any more"
    assert len(listed) == len(set(listed))


def test_every_listed_error_code_has_a_meaning_and_a_remedy():
    for line in re.findall(r"^\| `E_.*$", text_of("errors.md"), re.MULTILINE):
        _, code, meaning, remedy, _ = (cell.strip() for cell in line.split("|"))
        assert len(meaning) > 10, code
        assert len(remedy) > 5, code


@pytest.mark.parametrize("channel", list(topics.Channel))
def test_protocol_lists_every_topic(channel):
    assert f"`{topics.Address('{device}', channel)}`" in text_of("protocol.md")


def payloads() -> Iterator[type[Message]]:
    for kind in vars(messages).values():
        if isinstance(kind, type) and issubclass(kind, Message) and kind not in (Message, messages.Queued):
            yield kind


@pytest.mark.parametrize("kind", list(payloads()), ids=lambda kind: kind.__name__)
def test_protocol_lists_every_field_of_every_payload(kind):
    section = re.search(rf"^### {kind.__name__}\b(.*?)(?=^##|\Z)", text_of("protocol.md"), re.MULTILINE | re.DOTALL)
    assert section, f"docs/protocol.md needs a section `### {kind.__name__}`"
    listed = set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE))
    assert listed == set(kind.model_fields)


def commands() -> Iterator[tuple[str, click.Command]]:
    def below(path: str, command: click.Command, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield path, command
            return
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from below(f"{path} {name}", found, ctx)

    programs = {"flotilla": cli}
    for program, module in (("flotilla-fleet", "fleet.__main__"), ("flotilla-agent", "agent.__main__")):
        found = vars(importlib.import_module(module)).values()
        groups = [value for value in found if isinstance(value, click.Group)]
        assert groups, f"{module} has no click group"
        programs[program] = max(groups, key=lambda group: len(group.commands))
    for program, group in programs.items():
        yield from below(program, group, click.Context(group, info_name=program))


def help_of(path: str, command: click.Command) -> str:
    return command.get_help(click.Context(command, info_name=path))


def test_every_command_has_help_an_example_and_json():
    lacking: list[str] = []
    for path, command in commands():
        options = {word for parameter in command.params for word in parameter.opts}
        shown = help_of(path, command)
        if "--json" not in options:
            lacking.append(f"{path}: --json")
        if len((command.help or "").strip()) < 20:
            lacking.append(f"{path}: help")
        if not re.search(r"(?im)^\s*examples?:", shown) or not re.search(rf"(?m)^\s+.*\b{path}\b", shown):
            lacking.append(f"{path}: example")
    assert lacking == []


def examples() -> Iterator[tuple[str, str]]:
    """Command lines that people are told to type: examples in help, blocks in README and docs."""
    for path, command in commands():
        for line in (command.epilog or "").splitlines():
            if line.strip().startswith(path.partition(" ")[0]):
                yield f"help of {path}", line
    for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        for block in re.findall(
            r"^```(?:console|sh)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            for line in block.splitlines():
                line = re.sub(r"^(\$|#|[\w-]+\$) ", "", line.strip())
                if re.match(r"(sudo )?flotilla(-fleet|-agent)? ", line):
                    yield page.name, line.removeprefix("sudo ")


def test_every_command_line_in_help_and_docs_parses():
    known = dict(commands())
    wrong: list[str] = []
    for where, line in examples():
        words = shlex.split(re.split(r"\s(?:\||>|<|&&)\s", line)[0], comments=True)
        path = next((" ".join(words[:n]) for n in (4, 3, 2, 1) if " ".join(words[:n]) in known), None)
        if path is None:
            if words[-1] not in ("--help", "--version"):
                wrong.append(f"{where}: {line}: no such command")
            continue
        command, rest = known[path], words[path.count(" ") + 1 :]
        if "--help" in rest:
            continue
        try:
            values, left, _ = command.make_parser(click.Context(command, info_name=path)).parse_args(rest)
        except click.UsageError as error:
            wrong.append(f"{where}: {line}: {error.format_message()}")
            continue
        lacking = [one.name for one in command.params if one.required and values.get(one.name) in (None, (), UNSET)]
        wrong += [
            f"{where}: {line}: {problem}"
            for problem in (f"too much: {left}", f"lacks {lacking}")
            if "[]" not in problem
        ]
    assert wrong == []


def test_commands_that_texts_tell_people_to_type_exist():
    known = {path for path, _ in commands()}
    groups = {path.rpartition(" ")[0] for path in known if path.count(" ") > 1}
    wrong: list[str] = []
    for name, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            for program, *words in re.findall(r"\b(flotilla(?:-agent|-fleet)?) ([a-z]+)(?: ([a-z]+))?", node.value):
                first, both = f"{program} {words[0]}", " ".join((program, *words)).strip()
                if first in groups and words[1] and both not in known | groups:
                    wrong.append(f"{name}: {both}")
                elif first not in groups | known and f"`{first}" in node.value:
                    wrong.append(f"{name}: {first}")
    assert wrong == []


def test_lock_file_has_versions_and_hashes_and_no_hosts():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+", entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


def tracked() -> list[Path]:
    asked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in asked.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_paths_of_one_machine():
    own = re.compile(r"(?<![\w.<>{}\])-])/(?:work|root|home/\w+)/")
    guilty = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        guilty += [f"{path.relative_to(ROOT)}: {found.group()}" for found in own.finditer(text)]
    assert guilty == []


def test_changelog_has_a_place_for_the_next_line():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## Unreleased$", text, re.MULTILINE)


def test_every_decision_has_one_page_and_a_place_in_the_index():
    pages = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    index = text_of("adr/README.md")
    for name in pages:
        text = text_of(f"adr/{name}")
        assert re.search(r"^# ADR \d+: ", text)
        assert all(f"## {part}" in text for part in ("Context", "Decision", "Consequences")), name
        assert len(text.splitlines()) <= 60, f"{name} is longer than a page"
        assert name in index


def test_adr_references_in_code_exist():
    present = {int(path.name[:4]) for path in (DOCS / "adr").glob("[0-9]*.md")}
    named = {
        int(number)
        for path in MODULES.values()
        for number in re.findall(r"\bADR (\d+)\b", path.read_text(encoding="utf-8"))
    }
    assert named <= present


def test_vendored_files_are_the_ones_listed():
    folder = ROOT / "fleet" / "dashboard" / "static" / "vendor"
    lists = [path for path in (folder.iterdir() if folder.is_dir() else []) if "SHA256" in path.name.upper()]
    if not lists:
        pytest.skip("nothing is vendored")
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", lists[0].name], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_diagrams_and_links_are_current():
    done = subprocess.run([sys.executable, str(DOCS / "build.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
