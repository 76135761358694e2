"""`avloc eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.options import Device, Json, Precision, WeightsDir
from avloc.errors import MissingClips


def evaluate(
    testset: Annotated[
        str,
        typer.Option(
            help="flickr, flickr-250, flickr-ext, vggss, vggss-4692, vggss-heard, vggss-unheard, vggss-ext, or your own.",
            show_default=False,
        ),
    ] = "",
    store: Annotated[
        Path | None,
        typer.Option(
            help="Prepared test store.  [default: $AVLOC_DATA/TESTSET, else data/TESTSET]", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run folder, .safetensors, or a published .pth; may repeat.  [default: the model in the package]",
            show_default=False,
        ),
    ] = None,
    maps: Annotated[
        str,
        typer.Option(
            help="av, object, fused, detr, baselines, sweep; several with commas.  [default: av,object,fused]",
            show_default=False,
        ),
    ] = "",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="avloc, ezvsl, lvs, sspl, sacl, slavc, sslalign, avc-code; may repeat.  [default: avloc]",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[str, typer.Option(help="ImageNet network of the object prior.")] = "resnet18",
    negatives: Annotated[
        int, typer.Option(help="Wrong sounds of each kind for every picture; 0 leaves them out.")
    ] = 0,
    max_missing: Annotated[int, typer.Option(help="Missing clips that are still fine; more give exit code 5.")] = 0,
    batch: Annotated[int, typer.Option(help="Clips at once; the scores do not depend on it.")] = 16,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """Score models on a prepared test set, with the protocol and what is missing beside every number."""
    from avloc import console
    from avloc.evaluate import EvalOptions
    from avloc.evaluate import evaluate as run

    options = EvalOptions(
        testset=testset,
        store=store,
        models=tuple(model or ()),
        maps=tuple(name.strip() for name in maps.split(",") if name.strip()),
        protocols=tuple(protocol or ()),
        prior=prior,
        negatives=negatives,
        weights_dir=weights_dir,
        device=device,
        precision=precision,
        batch=batch,
        max_missing=max_missing,
    )
    with console.live() as listener:
        reports = run(options, listener).reports
    console.print_scores(reports, as_json=as_json)
    missing = max(len(report.missing) for report in reports)
    if missing > max_missing:
        hint = f"Allow it with --max-missing {missing}."
        raise MissingClips(f"{missing} clips are missing; --max-missing allows {max_missing}", hint=hint)
