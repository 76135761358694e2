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
from avloc.errors import UsageError

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


def _print_doctor(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        from avloc.console.doctor_text import doctor_lines
        from avloc.console.terminal import print_json, print_lines
        from avloc.doctor import examine

        report = examine()
        if ctx.params.get("as_json"):
            print_json(report)
        else:
            print_lines(doctor_lines(report))
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[  # noqa: ARG001 (its callback prints)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    doctor: Annotated[  # noqa: ARG001 (its callback prints)
        bool,
        typer.Option(
            "--doctor", callback=_print_doctor, help="Print versions, devices, codecs and weights here, and exit."
        ),
    ] = False,
    as_json: Annotated[  # eager, so that --doctor can read it
        bool, typer.Option("--json", is_eager=True, help="With --doctor: print JSON.")
    ] = False,
) -> None:
    """Where in this picture does the sound come from? Train, score and use audio-visual sound localizers."""
    if as_json:
        raise UsageError("--json before a command applies to --doctor only; valid: behind the command")


def main() -> None:
    """Entry point of the `avloc` command."""
    run(app)
