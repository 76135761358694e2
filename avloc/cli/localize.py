"""`avloc localize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.edge import EXIT_FAILED_INPUTS
from avloc.cli.options import Device, Json, Precision
from avloc.errors import NoInputLeft


def localize(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Videos, or one picture with --audio; - is standard input.")
    ],
    out: Annotated[
        str,
        typer.Option(
            help="heat.png (overlay), heat.npy (float32 [H, W]), or a folder with a slash.  [default: STEM.heat.png]",
            show_default=False,
        ),
    ] = "",
    audio: Annotated[Path | None, typer.Option(help="Sound for one picture.", show_default=False)] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Run folder, .safetensors, or a published .pth.  [default: the model in the package]",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """Show where in a picture its sound comes from."""
    from avloc import console
    from avloc.localize import LocalizeOptions
    from avloc.localize import localize as run

    options = LocalizeOptions(
        inputs=tuple(inputs),
        audio=audio,
        model=model,
        out=out,
        pictures=bool(out) or not as_json,
        device=device,
        precision=precision,
    )
    failed = 0
    with console.live() as listener:
        for result in run(options, listener):
            failed += bool(result.error)
            console.print_localization(result, listener, as_json=as_json)
    if failed == len(inputs):
        raise NoInputLeft("no input could be localized" if failed > 1 else f"{inputs[0]} could not be localized")
    if failed:
        raise typer.Exit(EXIT_FAILED_INPUTS)
