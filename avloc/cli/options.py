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
        help="Only shard i of n, as 2/4; shards can run at the same time.  [default: from $RANK and $WORLD_SIZE, "
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
            flag = key.upper() if option.param_type_name == "argument" else max(option.opts, key=len)
            raise UsageError(
                f"{flag} does not apply to {mode.flag}" if mode else f"{flag} applies to {', '.join(owners)}"
            )
    return mode


def renamed(ctx: typer.Context, old: str, new: str) -> str:
    """The value of parameter `new`, or of `old`, its deprecated spelling, with a line on standard error.

    Raises:
        UsageError: both spellings were given.
    """
    old_flag, new_flag = (f"--{name.replace('_', '-')}" for name in (old, new))
    if not ctx.params[old]:
        return str(ctx.params[new])
    source = ctx.get_parameter_source(new)
    if source is not None and source.name == "COMMANDLINE":
        raise UsageError(f"{old_flag} is the old spelling of {new_flag}; valid: one of them")
    typer.echo(f"avloc: {old_flag} is deprecated; use {new_flag}", err=True)
    return str(ctx.params[old])
