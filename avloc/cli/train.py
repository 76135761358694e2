"""`avloc train`."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from avloc import config as configs
from avloc.cli.exit_codes import StopRequest
from avloc.cli.options import Device, DryRun, Json, WeightsDir, given_options
from avloc.errors import UsageError
from avloc.malloc import keep_freed_memory
from avloc.progress import Notice, silent
from avloc.registry import EVENT_SPECS, METHOD_SPECS, merged

_SEED = re.compile(r"[0-9]{1,19}")
_SETTINGS = {
    **{name: f"model.{name}" for name in ("dim", "vision_trunk", "audio_trunk")},
    **{f"no_{name}": f"loss.{name}" for name in ("audio_hint", "visual_hint")},
}
"""Parameter -> the setting that it sets, if its name is another."""


def train(
    ctx: typer.Context,
    store: Annotated[Path, typer.Argument(help="Prepared store.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; an existing run is resumed.")],
    method: Annotated[
        str, typer.Option(help=f"{', '.join(METHOD_SPECS)}; or {', '.join(EVENT_SPECS)}.  [default: avc]")
    ] = "",
    val: Annotated[
        str, typer.Option(help="Held-out clips that select the epoch: a store, a share as 0.1, or a split's name.")
    ] = "",
    epochs: Annotated[int | None, typer.Option(help="Epochs.  [default: the method's; avc 100]")] = None,
    batch: Annotated[int | None, typer.Option(help="Clips in a batch.  [default: the method's; avc 128]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.  [default: 10]")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several seeds, as 10,20,30: one run each, in OUT/seed-10 and so on.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Width of the embedding space.  [default: the method's; avc 2048]")
    ] = None,
    vision_trunk: Annotated[
        str | None, typer.Option(help="Image backbone.  [default: the method's; avc resnet18]")
    ] = None,
    audio_trunk: Annotated[
        str | None, typer.Option(help="Audio backbone.  [default: the method's; avc resnet18]")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="imagenet, concepts, random, or a model file to start from.  [default: imagenet]")
    ] = None,
    no_audio_hint: Annotated[
        bool, typer.Option("--no-audio-hint", help="Train without hints of the audio teacher.")
    ] = False,
    no_visual_hint: Annotated[
        bool, typer.Option("--no-visual-hint", help="Train without hints of the visual teacher.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options and --set override it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as optim.lr=0.001.")
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings as TOML and exit.")] = False,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a model on a prepared store; run again to resume where it was stopped."""
    options_table: dict[str, Any] = {
        "epochs": epochs,
        "batch": batch,
        "seed": seed,
        "init": init,
        "model": {"dim": dim, "vision_trunk": vision_trunk, "audio_trunk": audio_trunk},
        "loss": {"audio_hint": 0.0 if no_audio_hint else None, "visual_hint": 0.0 if no_visual_hint else None},
    }
    many = () if seeds is None else _seeds(seeds)
    assigned = configs.parse_settings(settings or [])
    if many and (seed is not None or "seed" in assigned):
        raise UsageError("--seeds and --seed (or --set seed=N) contradict each other; valid: one of them")
    _check_hints(options_table["loss"], configs.dotted(assigned))
    table = configs.read_toml(config) if config else {}
    # A run folder's config.toml also holds the hash of its data; its settings are under [train].
    settings_table = table["train"] if isinstance(table.get("train"), dict) else table
    given = {_SETTINGS.get(name, name): flag for name, flag in given_options(ctx).items()}
    given |= {name: f"--set {name}" for name in configs.dotted(assigned)}
    resolved = configs.resolve_config(merged(merged(settings_table, _given(options_table)), assigned), method, given)
    if print_config:
        # Not typer.echo, which writes UTF-8 even if the stream's encoding is ASCII.
        print(configs.write_toml(configs.to_dict(resolved)), end="", flush=True)  # noqa: T201
        return

    from avloc.console import terminal
    from avloc.distributed import joined
    from avloc.train import TrainOptions, seed_runs
    from avloc.train import train as run

    options = TrainOptions(store=store, out=out, val=val, weights_dir=weights_dir, device=device, dry_run=dry_run)
    runs = seed_runs(options, resolved, many) if many else [(options, resolved)]
    keep_freed_memory()
    stop, stopped_by = StopRequest(), 0
    with stop.handling_signals(), joined() as peers:
        for left, (where, what) in zip(reversed(range(len(runs))), runs, strict=True):
            stop.polled = False  # until this run polls it, a signal interrupts at once
            with terminal.live() if peers.is_first else nullcontext(silent) as listener:
                if many:
                    listener(Notice(f"seed {what.seed}: {where.out}"))
                report = run(where, what, listener, stop, peers)
            if peers.is_first:
                terminal.print_training(report, as_json=as_json)
            signum = max(peers.objects(stop.signum))
            if report.interrupted or (left and signum):
                stopped_by = signum
                break
    if stopped_by:
        raise typer.Exit(128 + stopped_by)


def _check_hints(disabled: dict[str, float | None], assigned: dict[str, Any]) -> None:
    """Raise a UsageError for a hint term that one option disables and `--set` gives a weight."""
    for name, weight in disabled.items():
        value = assigned.get(f"loss.{name}", 0)
        if weight is not None and value != weight:
            flag, setting = f"--no-{name.replace('_', '-')}", f"--set loss.{name}={value}"
            raise UsageError(f"{flag} and {setting} contradict each other; valid: one of them")


def _seeds(text: str) -> tuple[int, ...]:
    """The seeds of `--seeds`, in order.

    Raises:
        UsageError: an invalid seed, or a repeated one.
    """
    names = [name.strip() for name in text.split(",")]
    wrong = next((name for name in names if not _SEED.fullmatch(name)), None)
    if wrong is not None:
        raise UsageError(f"--seeds {text}: {wrong!r} is not a seed; valid: whole numbers with commas, as 10,20,30")
    found = tuple(int(name) for name in names)
    if len(set(found)) < len(found):
        raise UsageError(f"--seeds {text} names a seed twice; valid: each seed once")
    return found


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as nested tables."""
    tables = {name: _given(value) if isinstance(value, dict) else value for name, value in options.items()}
    return {name: value for name, value in tables.items() if value not in (None, {})}
