"""Options that several commands share, and the check that an option applies to the selected mode of its command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.errors import UsageError
from avloc.registry import MODES, Mode

WeightsDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder searched first for published weights; then $AVLOC_WEIGHTS, the cache folder, a download."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16; part of the protocol.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="<i/n>",
        help="Only part i of n, as 2/4; parts can run at the same time.  [default: from $RANK and $WORLD_SIZE, "
        "if a launcher has set them]",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done; write nothing.")]


def mode_of(ctx: typer.Context, name: str) -> Mode | None:
    """The mode `name` of the running command; None for its default one.

    Raises:
        UsageError: an option on the command line does not apply to it, whatever its value.
    """
    modes = MODES[str(ctx.command.name)]
    mode = modes.get(name)
    for option in ctx.command.params:
        key = str(option.name)
        owners = [other.flag for other in modes.values() if key in other.own]
        applies = key in (*mode.takes, *mode.own) if mode else not owners
        source = ctx.get_parameter_source(key)
        if not applies and source is not None and source.name == "COMMANDLINE":
            flag = max(option.opts, key=len)
            raise UsageError(
                f"{flag} does not go with {mode.flag}" if mode else f"{flag} goes with {', '.join(owners)}"
            )
    return mode


def renamed(old: str, old_value: str, new: str, value: str, default: str = "") -> str:
    """The value of an option under its old spelling, with a line on standard error, or under its new one.

    Raises:
        UsageError: both spellings were given.
    """
    if not old_value:
        return value
    if value != default:
        raise UsageError(f"{old} is the old spelling of {new}; valid: one of them")
    typer.echo(f"avloc: {old} is deprecated; use {new}", err=True)
    return old_value
