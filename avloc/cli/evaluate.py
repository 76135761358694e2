"""`avloc eval`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.options import Device, Json, Precision, WeightsDir, comma_separated, mode_of, renamed
from avloc.errors import UsageError
from avloc.malloc import keep_freed_memory
from avloc.registry import resolve


def evaluate(
    ctx: typer.Context,
    run: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Models: run folders, folders of seed-N runs, .safetensors or published .pth.  "
            "[default: the model in the package]",
        ),
    ] = None,
    testset: Annotated[
        str,
        typer.Option(
            help="flickr, flickr-250, flickr-ext, vggss, vggss-4692, vggss-heard, vggss-unheard, vggss-ext, "
            "ave, ave-weak or ave-match, or a name of your own."
        ),
    ] = "",
    store: Annotated[
        Path | None, typer.Option(help="Prepared test store.  [default: $AVLOC_DATA/TESTSET, else data/TESTSET]")
    ] = None,
    model: Annotated[list[Path] | None, typer.Option(help="Same as the argument; may repeat.")] = None,
    maps: Annotated[
        str,
        typer.Option(
            help="shipped (fused as the model's card says), av, object, fused, detr, baselines, sweep; several with "
            "commas.  [default: shipped if the card has a fusion, and av,object,fused]"
        ),
    ] = "",
    maps_dir: Annotated[  # text, because an empty path would be the working folder
        str | None,
        typer.Option(
            metavar="<path>",
            help="Score the maps of another program instead of a model: a folder of ID.npy, [h, w] each.",
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="avloc, ezvsl, lvs, sspl, sacl, slavc, sslalign, avc-code; may repeat.  [default: avloc, and "
            "the model's own]"
        ),
    ] = None,
    object_prior: Annotated[str, typer.Option(help="ImageNet network of the object map.")] = "resnet18",
    prior: Annotated[str, typer.Option("--prior", hidden=True)] = "",  # noqa: ARG001 (read by `renamed`)
    negatives: Annotated[int, typer.Option(help="Wrong sounds of each kind per picture; 0 for none.")] = 0,
    compare: Annotated[Path | None, typer.Option(help="Another model or run: paired differences per clip.")] = None,
    paper_table: Annotated[
        str, typer.Option(help="A table of the AVC paper with our scores: 1 to 7, ablation, flickr, vggss, cross.")
    ] = "",
    report: Annotated[Path | None, typer.Option(help="Folder for per-clip tables, a summary and an HTML page.")] = None,
    clean_split: Annotated[  # noqa: ARG001 (taken from the context by the mode)
        bool, typer.Option("--clean-split", help="AVE: leave out test rows of videos in the training part.")
    ] = False,
    max_missing: Annotated[int, typer.Option(help="Missing clips to allow; more give exit code 5.")] = 0,
    batch: Annotated[int, typer.Option(help="Clips per batch; the scores do not depend on it.")] = 16,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """Score models on a prepared test set; every number comes with its protocol and the missing clips."""
    if mode := mode_of(ctx):
        resolve(mode.run)(**{name: ctx.params[name] for name in mode.takes})
        return
    from avloc.console.score_tables import print_session
    from avloc.console.terminal import live
    from avloc.evaluate import EvalOptions, check_missing, evaluate_runs, evaluate_table, report_session
    from avloc.report import prepare_folder

    if maps_dir == "":
        raise UsageError("--maps-dir is empty; valid: a folder")
    object_prior = renamed(ctx, "prior", "object_prior")
    paths = [*(run or ()), *(model or ())]
    options = EvalOptions(
        testset=testset,
        store=store,
        maps=tuple(comma_separated(maps)),
        maps_dir=None if maps_dir is None else Path(maps_dir),
        protocols=tuple(protocol or ()),
        prior=object_prior,
        negatives=negatives,
        weights_dir=weights_dir,
        device=device,
        precision=precision,
        batch=batch,
        max_missing=max_missing,
    )
    if report is not None:
        prepare_folder(report)
    keep_freed_memory()
    with live() as listener:
        if paper_table:
            session = evaluate_table(paper_table, options, paths, listener)
        else:
            session = evaluate_runs(options, paths, compare, listener)
    print_session(session, as_json=as_json)
    if report is not None:
        report_session(report, session, shlex.join(["avloc", *sys.argv[1:]]))
    if reports := session.evaluation.reports:
        least = max(reports, key=lambda report: len(report.missing))
        reasons = [f"{clip_id}: {reason}" for clip_id, reason in least.missing.items()]
        pairs = max(len(report.missing_pairs) for report in reports)
        check_missing(reasons, sum(report.n_scored for report in reports), max_missing, pairs=pairs)
