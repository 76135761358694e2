"""`avloc prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.options import DryRun, Json, ShardOption, mode_of


def prepare(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Files, folders or globs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store folder; run again to finish an interrupted store.")],
    layout: Annotated[
        str,
        typer.Option(
            help="auto, videos, folders (frames/ + audio/, or both together), hdf5 (SSPL/SACL sets), or ave (AVE's "
            "folder: annotations with videos, or with released features)."
        ),
    ] = "auto",
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Flickr-SoundNet or Pascal VOC XML folder, folder of PNG masks, VGG-SS json, or {path: boxes} json; "
            "makes a test store without --kind train."
        ),
    ] = None,
    ids: Annotated[
        str,
        typer.Option(
            help="Only these clips: a file of ids, VGGSound's list (all of its splits), or a published list by name."
        ),
    ] = "",
    method: Annotated[str, typer.Option("--for", help="Method that sets length and sample rate of the sound.")] = "avc",
    rate: Annotated[int, typer.Option(help="Sample rate in Hz; 0 is the method's (AVC: 22050).")] = 0,
    side: Annotated[
        int | None,
        typer.Option(help="Shorter side of a training store's frames in pixels; 0 is 256.  [default: 0]"),
    ] = None,
    kind: Annotated[str, typer.Option(help="train or test.  [default: test with --annotations or a test list]")] = "",
    frame: Annotated[str, typer.Option(help="middle, or a time in seconds as 5s.")] = "middle",
    track: Annotated[int | None, typer.Option(help="Sound track, counted from 1.  [default: the main one]")] = None,
    allow_test_overlap: Annotated[
        bool, typer.Option("--allow-test-overlap", help="Keep VGG-SS and Flickr test clips in a training store.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 is one per core.")] = 0,
    shard: ShardOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn videos, frame and sound folders, or packed sets into a store."""
    mode_of(ctx)
    from avloc.fork_server import start_server
    from avloc.sharding import select_shard, worker_count

    if worker_count(workers) != 1 and not dry_run:
        start_server()
    from avloc.console import terminal
    from avloc.prepare import PrepareOptions
    from avloc.prepare import prepare as run

    with terminal.live() as listener:
        options = PrepareOptions(
            layout=layout,
            annotations=annotations,
            ids=ids,
            method=method,
            rate=rate,
            side=side,
            frame=frame,
            track=track,
            kind=kind,
            allow_test_overlap=allow_test_overlap,
            workers=workers,
            shard=select_shard(shard, listener),
            dry_run=dry_run,
        )
        report = run(sources, out, options, listener)
    terminal.print_preparation(report, as_json=as_json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)
