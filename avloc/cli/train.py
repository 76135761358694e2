"""`avloc train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from avloc import config as configs
from avloc.cli.edge import StopRequest
from avloc.cli.options import Device, DryRun, Json, WeightsDir


def train(
    store: Annotated[Path, typer.Argument(help="Prepared store.")],
    out: Annotated[Path, typer.Option(help="Run folder; a run that is there goes on.")],
    val: Annotated[
        str, typer.Option(help="Held-out clips that choose the epoch: a store, a share as 0.1, or a split's name.")
    ] = "",
    epochs: Annotated[int | None, typer.Option(help="Epochs.  [default: 100]", show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(help="Clips in a batch.  [default: 128]", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.  [default: 10]", show_default=False)] = None,
    dim: Annotated[
        int | None, typer.Option(help="Width of the common space.  [default: 2048]", show_default=False)
    ] = None,
    vision_trunk: Annotated[
        str | None, typer.Option(help="torchvision network that sees.  [default: resnet18]", show_default=False)
    ] = None,
    audio_trunk: Annotated[
        str | None, typer.Option(help="torchvision network that hears.  [default: resnet18]", show_default=False)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="imagenet, random, or a model file to start from.  [default: imagenet]", show_default=False),
    ] = None,
    no_audio_hint: Annotated[bool, typer.Option("--no-audio-hint", help="Leave the sound teacher out.")] = False,
    no_visual_hint: Annotated[bool, typer.Option("--no-visual-hint", help="Leave the object teacher out.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; options and --set go over it.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as optim.lr=0.001.", show_default=False),
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and exit.")] = False,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a model on a prepared store; goes on by itself where it was stopped."""
    chosen: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "seed": seed,
        "init": init,
        "model": {"dim": dim, "vision_trunk": vision_trunk, "audio_trunk": audio_trunk},
        "loss": {"audio_hint": 0.0 if no_audio_hint else None, "visual_hint": 0.0 if no_visual_hint else None},
    }
    table = configs.read_toml(config) if config else {}
    # A run folder's config.toml also holds the hash of its data; its settings are under [train].
    settings_table = table["train"] if isinstance(table.get("train"), dict) else table
    table = configs.merged(settings_table, _given(chosen))
    table = configs.merged(table, configs.parse_settings(settings or []))
    settled = configs.from_dict(configs.TrainConfig, table)
    if print_config:
        typer.echo(configs.write_toml(configs.to_dict(settled)), nl=False)
        return

    from avloc import console
    from avloc.train import TrainOptions
    from avloc.train import train as run

    options = TrainOptions(store=store, out=out, val=val, weights_dir=weights_dir, device=device, dry_run=dry_run)
    stop = StopRequest()
    with console.live() as listener, stop.listening():
        report = run(options, settled, listener, stop)
    console.print_training(report, as_json=as_json)
    if report.interrupted:
        raise typer.Exit(128 + stop.signum)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed, table by table."""
    tables = {name: _given(value) if isinstance(value, dict) else value for name, value in options.items()}
    return {name: value for name, value in tables.items() if value not in (None, {})}
