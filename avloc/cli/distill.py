"""`avloc distill-cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avloc.cli.options import Device, Json, ShardOption, WeightsDir, mode_of
from avloc.malloc import keep_freed_memory


def distill_cache(
    ctx: typer.Context,
    store: Annotated[Path, typer.Argument(help="Prepared store.")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="panns, yamnet or vggish (audio), detr, lite0 or vgg19 (image); may repeat.  [default: panns, detr]"
        ),
    ] = None,
    import_npy: Annotated[
        Path | None,
        typer.Option(help="Folder with audio_feats/ and detr_dec_feats/ of AVC users, instead of running teachers."),
    ] = None,
    sound: Annotated[
        str, typer.Option(help="Audio input of PANNs: source (full bandwidth), store, or auto (source if all exist).")
    ] = "auto",
    raw_embedding: Annotated[
        bool, typer.Option("--raw-embedding", help="Store PANNs embeddings without L2 normalisation.")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Use DETR queries above this class probability.")] = 0.3,
    batch: Annotated[int, typer.Option(help="Clips per batch; the hints do not depend on it.")] = 8,
    workers: Annotated[int, typer.Option(help="Decoding processes; 0 is one per core.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32 or bf16; a folder of hints has one.")] = "fp32",
    shard: ShardOption = None,
    weights_dir: WeightsDir = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Run the frozen teachers once and store their hints beside the clips; resumable."""
    mode_of(ctx)
    from avloc.console import terminal
    from avloc.distill import PUBLISHED_TEACHERS, DistillOptions
    from avloc.distill import distill_cache as run
    from avloc.sharding import select_shard

    with terminal.live() as listener:
        options = DistillOptions(
            teachers=tuple(teacher or PUBLISHED_TEACHERS),
            import_npy=import_npy,
            sound=sound,
            normalise=not raw_embedding,
            confidence=confidence,
            batch=batch,
            workers=workers,
            precision=precision,
            shard=select_shard(shard, listener),
            weights_dir=weights_dir,
            device=device,
        )
        keep_freed_memory()
        report = run(store, options, listener)
    terminal.print_distillation(report, as_json=as_json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)
