"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.errors import UsageError

WeightsDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder searched first for published weights; then $AVLOC_WEIGHTS, the cache folder, a download.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16; part of the protocol.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="<i/n>",
        help="Only part i of n, as 2/4; parts can run at the same time.  [default: by $RANK and $WORLD_SIZE, "
        "where a launcher has set them]",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


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
