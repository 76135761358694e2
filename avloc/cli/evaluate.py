"""`avloc eval`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avloc.cli.options import Device, Json, Precision, WeightsDir, mode_of, renamed
from avloc.errors import MissingClips, NoInputLeft, UsageError
from avloc.malloc import keep_freed_memory
from avloc.registry import EVENT_TESTSETS, MAPS_DIR, resolve

if TYPE_CHECKING:
    from avloc.evaluate import EvalReport


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
    maps_dir: Annotated[
        Path | None,
        typer.Option(help="Score the maps of another program instead of a model: a folder of ID.npy, [h, w] each."),
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
    mode = mode_of(ctx, MAPS_DIR if maps_dir is not None and testset not in EVENT_TESTSETS else testset)
    if mode and mode.run:
        resolve(mode.run)(**{name: ctx.params[name] for name in mode.takes})
        return
    from avloc.console.score_tables import print_session
    from avloc.console.terminal import live
    from avloc.evaluate import EvalOptions, evaluate_runs, evaluate_table, report_session
    from avloc.report import prepare_folder

    object_prior = renamed(ctx, "prior", "object_prior")
    paths = [*(run or ()), *(model or ())]
    options = EvalOptions(
        testset=testset,
        store=store,
        maps=tuple(name.strip() for name in maps.split(",") if name.strip()),
        maps_dir=maps_dir,
        protocols=tuple(protocol or ()),
        prior=object_prior,
        negatives=negatives,
        weights_dir=weights_dir,
        device=device,
        precision=precision,
        batch=batch,
        max_missing=max_missing,
    )
    if paper_table and (compare or report):
        raise UsageError("--paper-table cannot be combined with --compare or --report")
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
    _check_missing(session.evaluation.reports, max_missing)


def _check_missing(reports: Sequence[EvalReport], max_missing: int) -> None:
    """Fail if nothing was scored, or more is missing than allowed; the scores have been printed."""
    if reports and not any(report.n_scored for report in reports):
        clip_id, reason = next(iter(reports[0].missing.items()))
        raise NoInputLeft(f"none of {reports[0].n_expected} clips could be scored; the first: {clip_id}: {reason}")
    clips = max((len(report.missing) for report in reports), default=0)
    pairs = max((len(report.missing_pairs) for report in reports), default=0)
    if clips + pairs > max_missing:
        hint = f"Allow it with --max-missing {clips + pairs}."
        kinds = f"{clips} clips and {pairs} silent pairs" if pairs else f"{clips} clip{'s' * (clips != 1)}"
        verb = "is" if clips + pairs == 1 else "are"
        raise MissingClips(f"{kinds} {verb} missing; --max-missing allows {max_missing}", hint=hint)
