"""Options that several commands share; which ones exclude each other is data in `avloc.option_rules`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.errors import UsageError
from avloc.option_rules import COMMA_SEPARATED, MODES, Mode, check_applies

WeightsDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder searched first for published weights; then $AVLOC_WEIGHTS, the cache folder, a download."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16; part of the protocol.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="<i/n>",
        help="Only shard i of n, as 2/4; shards can run at the same time.  [default: from $RANK and $WORLD_SIZE, "
        "if a launcher has set them]",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done; write nothing.")]


def given_options(ctx: typer.Context) -> dict[str, str]:
    """The parameters on the command line, each with its flag, or an argument's placeholder."""
    flags = {str(option.name): option.opts[0] for option in ctx.command.params if option.name in ctx.params}
    sources = {name: ctx.get_parameter_source(name) for name in flags if ctx.params[name] is not None}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return {name: flags[name] if flags[name].startswith("-") else name.upper() for name in given}


def comma_separated(text: str) -> list[str]:
    """The names in a text with commas, each once; spaces around them and empty ones are dropped."""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def mode_of(ctx: typer.Context) -> Mode | None:
    """The selected mode of the running command that other code runs; None if the command does.

    Raises:
        UsageError: an option on the command line does not apply to what other options select, whatever its value.
    """
    given, run = given_options(ctx), None
    for option, modes in MODES[str(ctx.command.name)].items():
        flag, value = f"--{option.replace('_', '-')}", ctx.params[option]
        value = comma_separated(value) if option in COMMA_SEPARATED else value
        names = value if isinstance(value, list) else [str(value)] if value else []
        is_listed = set(names) <= modes.keys()
        if not is_listed and "" not in modes:
            continue  # an unknown value, which the command refuses
        found = [modes.get(name, modes.get("", Mode())) for name in names]
        found = found or [mode for mode in modes.values() if mode.default]
        # With several values, as of --maps or --teacher, it is enough that an option applies to one of them.
        unused = set.intersection(*(set(mode.unused(ctx.params)) for mode in found)) if found else set()
        selected = f"{flag} {','.join(names)}" if is_listed else flag
        check_applies(given, unused - {option}, f"does not apply to {selected}")
        owned = {key for mode in modes.values() for key in mode.own}
        for key in sorted(owned.difference(*(mode.own for mode in found))):
            owners = ", ".join(name for name, mode in modes.items() if key in mode.own)
            check_applies(given, [key], f"applies only to {flag} {owners}")
        run = next((mode for mode in found if mode.run and len(found) == 1), run)
    return run


def renamed(ctx: typer.Context, old: str, new: str) -> str:
    """The value of parameter `new`, or of `old`, its deprecated spelling, with a line on standard error.

    Raises:
        UsageError: both spellings were given.
    """
    old_flag, new_flag = (f"--{name.replace('_', '-')}" for name in (old, new))
    if not ctx.params[old]:
        return str(ctx.params[new])
    if new in given_options(ctx):
        raise UsageError(f"{old_flag} is the old spelling of {new_flag}; valid: one of them")
    typer.echo(f"avloc: {old_flag} is deprecated; use {new_flag}", err=True)
    return str(ctx.params[old])
