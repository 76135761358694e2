"""`avloc localize`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.exit_codes import EXIT_FAILED_INPUTS
from avloc.cli.options import Device, Json, Precision, WeightsDir, mode_of, renamed
from avloc.errors import NoInputLeft
from avloc.registry import resolve


def localize(
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Videos, patterns, folders, @list.txt, or one picture with --audio; - is stdin."
        ),
    ],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            "-o",
            metavar="<str>",
            help="heat.png, .jpg, .webp or .gif (overlay), .mask.png, .npy (float32 [H, W]), .mp4 (overlay video), "
            ".json, .csv or .coco.json (of all inputs), a folder with a slash, or a name with {stem}, {time}; may "
            "repeat.  [default: {stem}.heat.png]",
        ),
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="Sound for one picture, or for one video.")] = None,
    track: Annotated[int | None, typer.Option(help="Sound track, counted from 1.  [default: the main one]")] = None,
    at: Annotated[
        float | None, typer.Option(help="Time in seconds; for a picture, the time in its sound.  [default: the middle]")
    ] = None,
    every: Annotated[float | None, typer.Option(help="Seconds between maps.")] = None,
    start: Annotated[float | None, typer.Option(help="Start time in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="End time in seconds.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Run folder, .safetensors, or a published .pth.  [default: the model in the package]"),
    ] = None,
    object_prior: Annotated[
        str,
        typer.Option(
            help="Object prior to fuse: own, a backbone such as resnet18, detr, none.  [default: the model's own]"
        ),
    ] = "",
    map_weights: Annotated[str, typer.Option(help="Weight of each map, as av=0.6,object=0.4.")] = "",
    weights: Annotated[str, typer.Option("--weights", hidden=True)] = "",  # noqa: ARG001 (read by `renamed`)
    weights_dir: WeightsDir = None,
    style: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Style of overlays; may repeat.")] = None,
    events: Annotated[  # noqa: ARG001 (read by `mode_of`)
        bool,
        typer.Option(
            "--events",
            help="Predict the event of every second, with a model of --method ave; --out is a picture or an .mp4.",
        ),
    ] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Skip inputs whose output exists.")] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """Show where in a picture its sound comes from."""
    if mode := mode_of(ctx):
        _check_failures(*resolve(mode.run)(**{name: ctx.params[name] for name in mode.takes}))
        return
    map_weights = renamed(ctx, "weights", "map_weights")
    from avloc.console import terminal
    from avloc.files import refuse_url
    from avloc.localize import Localization, LocalizeOptions, Times, parse_style, parse_weights
    from avloc.localize import localize as run

    outs = tuple(filter(None, out or ()))
    for text in outs:
        refuse_url(text, "--out")
    if audio is not None:
        refuse_url(str(audio), "--audio")
    options = LocalizeOptions(
        inputs=tuple(inputs),
        audio=audio,
        track=track,
        times=Times(at=at, every=every, start=start, end=end),
        model=model,
        prior=object_prior,
        weights=parse_weights(map_weights),
        weights_dir=weights_dir,
        out=outs,
        as_json=as_json,
        style=parse_style(style or []),
        skip_existing=skip_existing,
        device=device,
        precision=precision,
    )
    failed: list[str] = []
    count, incomplete = 0, False
    with terminal.live() as listener, closing(run(options, listener)) as results:
        for result in results:
            if isinstance(result, Localization):
                terminal.print_localization(result, listener, as_json=as_json)
                continue
            terminal.print_input_done(result, listener, as_json=as_json)
            count += 1
            failed += [result.input] if result.failed else []
            incomplete = incomplete or result.incomplete
    _check_failures(failed, count, incomplete)


def _check_failures(failed: Sequence[str], count: int, incomplete: bool) -> None:
    """Exit with an error if inputs failed; the reasons have been printed."""
    if failed and len(failed) == count > 1:
        raise NoInputLeft("no input could be localized")
    if failed and count == 1:
        raise typer.Exit(NoInputLeft.exit_code)
    if failed or incomplete:
        raise typer.Exit(EXIT_FAILED_INPUTS)
