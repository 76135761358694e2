"""The command line: options become a configuration, one call does the work, the console prints the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc import __version__
from avloc.cli.distill import distill_cache
from avloc.cli.evaluate import evaluate
from avloc.cli.exit_codes import run
from avloc.cli.localize import localize
from avloc.cli.prepare import prepare
from avloc.cli.train import train

# Plain help: it starts faster, and the README shows it as it is.
app = typer.Typer(
    name="avloc",
    help="Where in this picture does the sound come from? Train, score and use audio-visual sound localizers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for _name, _command, _package in (
    ("prepare", prepare, "prepare"),
    ("distill-cache", distill_cache, "distill"),
    ("train", train, "train"),
    ("eval", evaluate, "evaluate"),
    ("localize", localize, "localize"),
):
    _page = Path(__file__).resolve().parents[1] / _package / "README.md"
    app.command(_name, epilog=f"\b\nReference: {_page}")(_command)  # \b: do not wrap the path


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avloc {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Where in this picture does the sound come from? Train, score and use audio-visual sound localizers."""


def main() -> None:
    """Entry point of the `avloc` command."""
    run(app)
