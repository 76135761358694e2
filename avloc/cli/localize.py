"""`avloc localize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.entry_point import EXIT_FAILED_INPUTS
from avloc.cli.options import Device, Json, Precision, WeightsDir, renamed
from avloc.errors import NoInputLeft, UsageError


def localize(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Videos, patterns, folders, @list.txt, or one picture with --audio; - is stdin."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="heat.png, .jpg, .webp or .gif (overlay), .npy (float32 [H, W]), .mp4 (overlay video), a folder with "
            "a slash, or a name with {stem}, {time}.  [default: {stem}.heat.png]",
            show_default=False,
        ),
    ] = "",
    audio: Annotated[
        Path | None, typer.Option(help="Sound for one picture, or for one video.", show_default=False)
    ] = None,
    track: Annotated[
        int | None, typer.Option(help="Sound track, counted from 1.  [default: the main one]", show_default=False)
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(
            help="Time in seconds; of a picture, the place in its sound.  [default: the middle]", show_default=False
        ),
    ] = None,
    every: Annotated[float | None, typer.Option(help="A map each so many seconds.", show_default=False)] = None,
    start: Annotated[float | None, typer.Option(help="Nothing before, in seconds.", show_default=False)] = None,
    end: Annotated[float | None, typer.Option(help="Nothing after, in seconds.", show_default=False)] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Run folder, .safetensors, or a published .pth.  [default: the model in the package]",
            show_default=False,
        ),
    ] = None,
    object_prior: Annotated[
        str,
        typer.Option(
            help="Where objects are, fused in: own, a trunk as resnet18, detr, none.  [default: the model's own]",
            show_default=False,
        ),
    ] = "",
    map_weights: Annotated[
        str, typer.Option(help="Weight of each map, as av=0.6,object=0.4.", show_default=False)
    ] = "",
    weights: Annotated[str, typer.Option("--weights", hidden=True)] = "",
    weights_dir: WeightsDir = None,
    style: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Look of overlays; may repeat.", show_default=False)
    ] = None,
    events: Annotated[
        bool,
        typer.Option(
            "--events",
            help="A timeline of events, second by second, by a model of --method ave; --out is a picture or an .mp4.",
        ),
    ] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out what is there already.")] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """Show where in a picture its sound comes from."""
    map_weights = renamed("--weights", weights, "--map-weights", map_weights)
    if events:
        _check_events(
            {"--audio": audio, "--track": track, "--at": at, "--every": every, "--start": start, "--end": end}
            | {"--object-prior": object_prior, "--map-weights": map_weights, "--style": style}
            | {"--skip-existing": skip_existing, "--precision": precision if precision != "fp32" else None}
        )
        _localize_events(inputs, out, model, weights_dir, device=device, as_json=as_json)
        return
    from avloc import console
    from avloc.files import refuse_url
    from avloc.localize import Localization, LocalizeOptions, Times, parse_style, parse_weights
    from avloc.localize import localize as run

    refuse_url(out, "--out")
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
        out=out,
        as_json=as_json,
        style=parse_style(style or []),
        skip_existing=skip_existing,
        device=device,
        precision=precision,
    )
    failed: list[str] = []
    count, incomplete = 0, False
    with console.live() as listener, closing(run(options, listener)) as results:
        for result in results:
            if isinstance(result, Localization):
                console.print_localization(result, listener, as_json=as_json)
                continue
            console.print_input_done(result, listener, as_json=as_json)
            count += 1
            failed += [result.input] if result.failed else []
            incomplete = incomplete or result.incomplete
    _judge(failed, count, incomplete=incomplete)


def _judge(failed: Sequence[str], count: int, *, incomplete: bool = False) -> None:
    """After everything is said: did every input work?"""
    if failed and len(failed) == count > 1:
        raise NoInputLeft("no input could be localized")
    if failed and count == 1:  # why has been said
        raise typer.Exit(NoInputLeft.exit_code)
    if failed or incomplete:
        raise typer.Exit(EXIT_FAILED_INPUTS)


def _check_events(given: Mapping[str, object]) -> None:
    wrong = next(
        (flag for flag, value in given.items() if value is not None and value is not False and value != ""), None
    )
    if wrong:
        raise UsageError(f"{wrong} does not go with --events, which tells every second of the whole video")


def _localize_events(
    inputs: list[str], out: str, model: Path | None, weights_dir: Path | None, *, device: str, as_json: bool
) -> None:
    from avloc import console
    from avloc.localize.events import EventsOptions, localize_events

    options = EventsOptions(
        inputs=tuple(inputs), model=model, weights_dir=weights_dir, out=out, as_json=as_json, device=device
    )
    failed, count, incomplete = [], 0, False
    with console.live() as listener, closing(localize_events(options, listener)) as results:
        for told in results:
            console.print_told(told, listener, as_json=as_json)
            count += 1
            failed += [told.input] if told.timeline is None else []
            incomplete = incomplete or bool(told.error)
    _judge(failed, count, incomplete=incomplete)
