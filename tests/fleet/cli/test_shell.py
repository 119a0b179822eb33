"""Options, output, errors and exit codes that all commands share."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command
from shared.errors import BadInputError, RefusedError, UnavailableError

PROGRAM = [sys.executable, "-m", "fleet.cli"]


def run(function, *words, **options):
    made = command(name="probe", example="flotilla probe")(function)
    for option in options.get("options", ()):
        made = option(made)
    return CliRunner().invoke(made, list(words))


def test_help_of_the_program_is_grouped_and_imports_nothing_heavy():
    script = (
        "import sys; from fleet.cli.__main__ import cli; cli.main(['-h'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for section in ("Start here:", "Devices:", "Releases:", "Watch:"):
        assert section in done.stdout
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {
        "httpx2",
        "yaml",
        "pydantic",
        "rich",
        "sqlalchemy",
        "fastapi",
        "numpy",
        "tuf",
        "nacl",
        "asyncio",
    }


def test_completion_of_the_first_word_imports_no_command():
    script = "import sys; from fleet.cli.__main__ import cli; cli.main([], prog_name='flotilla', standalone_mode=False)"
    wish = {"_FLOTILLA_COMPLETE": "bash_complete", "COMP_WORDS": "flotilla d", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **wish})
    assert done.stdout.split() == ["plain,demo", "plain,doctor", "plain,device", "plain,drift"]
    assert "fleet.cli.devices" not in done.stderr


def test_a_near_miss_is_answered_with_a_suggestion(types):
    done = types("devise")
    assert done.exit_code == Exit.USAGE
    assert "device" in done.stderr
    assert done.stdout == ""


def test_a_wrong_option_is_one_json_document_with_json(types):
    done = types("config", "show", "--jsonn", "--json")
    assert done.exit_code == Exit.USAGE
    assert json.loads(done.stdout)["code"] == "E_USAGE"
    assert json.loads(done.stdout)["hint"] == "flotilla config show --help"


def test_version(types):
    assert types("--version").stdout.startswith("flotilla 0.")


def test_emit_writes_text_or_one_document():
    def probe(shell: Shell) -> None:
        """Probe."""
        shell.emit({"a": 1}, "words")

    assert run(probe).stdout == "words\n"
    assert json.loads(run(probe, "--json").stdout) == {"a": 1}


def test_tables_without_a_terminal_are_tab_separated_without_heading():
    def probe(shell: Shell) -> None:
        """Probe."""
        rows = [{"id": "a", "labels": {"k": "v"}, "on": True}, {"id": "b\nc\t", "labels": None, "on": False}]
        shell.table(rows, [("ID", "id"), ("LABELS", "labels"), ("ON", "on"), ("LEN", lambda row: str(len(row)))])

    assert run(probe).stdout == "a\tk=v\tyes\t3\nb c \t–\tno\t3\n"
    assert [row["id"] for row in json.loads(run(probe, "--json").stdout)] == ["a", "b\nc\t"]


def test_an_empty_table_says_so_on_stderr_and_nothing_on_stdout():
    def probe(shell: Shell) -> None:
        """Probe."""
        shell.table([], [("ID", "id")], document={"items": []}, empty="No devices.")

    assert (run(probe).stdout, run(probe).stderr) == ("", "No devices.\n")
    assert run(probe, "-q").stderr == ""
    assert json.loads(run(probe, "--json").stdout) == {"items": []}


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (CliError("E_X", "what", "why", "try this", Exit.CONFLICT), Exit.CONFLICT),
        (type("LeafError", (RefusedError,), {"code": "E_X"})("what", remedy="try this"), Exit.FAILED),
        (type("InputError", (BadInputError,), {"code": "E_X"})("what", remedy="try this"), Exit.USAGE),
        (type("AwayError", (UnavailableError,), {"code": "E_X"})("what", remedy="try this"), Exit.UNREACHABLE),
    ],
)
def test_errors_have_code_words_remedy_and_exit_code(raised, code):
    def probe(shell: Shell) -> None:
        """Probe."""
        raise raised

    done = run(probe)
    assert done.exit_code == code
    assert "error E_X: what" in done.stderr
    assert "try   try this" in done.stderr
    assert done.stdout == ""
    document = json.loads(run(probe, "--json").stdout)
    assert (document["code"], document["hint"], document["exit"]) == ("E_X", "try this", code)


def test_an_error_after_the_document_adds_no_second_one():
    def probe(shell: Shell) -> None:
        """Probe."""
        shell.emit({"half": True}, "half")
        raise CliError("E_X", "what")

    done = run(probe, "--json")
    assert json.loads(done.stdout) == {"half": True}
    assert "E_X" in done.stderr


def test_without_a_terminal_a_question_is_an_error_that_names_yes():
    def probe(shell: Shell) -> None:
        """Probe."""
        shell.confirm("Really?", yes=False)

    done = run(probe)
    assert done.exit_code == Exit.USAGE
    assert "--yes" in done.stderr


def test_an_interrupt_ends_with_130():
    def probe(shell: Shell) -> None:
        """Probe."""
        raise KeyboardInterrupt

    assert run(probe).exit_code == Exit.INTERRUPTED


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(PROGRAM)} --help | head -n 0"], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_help_shows_the_example_and_the_common_options_apart(types):
    done = types("config", "show", "--help")
    assert "Example:\n  flotilla config show --origin" in done.stdout
    assert done.stdout.index("--origin") < done.stdout.index("Common options:") < done.stdout.index("--json")


@pytest.mark.parametrize("words", [["--help"], ["device", "--help"]])
def test_help_is_quick(words, tmp_path: Path):
    subprocess.run([*PROGRAM, *words], capture_output=True, check=True)  # compiles
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(3):
        subprocess.run([*PROGRAM, *words], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 3
    assert seconds < 0.25  # 0.06 measured on a quiet machine


def test_no_color_and_not_a_terminal_leave_no_escapes():
    def probe(shell: Shell) -> None:
        """Probe."""
        shell.emit(None, click.style("red", fg="red"))

    assert run(probe).stdout == "red\n"
    assert "NO_COLOR" in " ".join(run(probe, "--help").stdout.split())
    assert os.environ.get("FORCE_COLOR") is None
