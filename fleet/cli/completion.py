"""`flotilla completion`: a script that lets the shell complete commands and options.

I/O: disk.
"""

import click
from click.shell_completion import get_completion_class

from fleet.cli.shell import Shell, command


@command(
    name="completion",
    example='eval "$(flotilla completion bash)"      # add to ~/.bashrc; zsh likewise\n'
    "flotilla completion fish > ~/.config/fish/completions/flotilla.fish",
)
@click.argument("kind", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: Shell, kind: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    maker = get_completion_class(kind)
    if maker is None:
        raise ValueError(kind)
    made = maker(click.Command("flotilla"), {}, "flotilla", "_FLOTILLA_COMPLETE")
    script = made.source_template % made.source_vars()
    shell.emit({"shell": kind, "script": script}, script)
