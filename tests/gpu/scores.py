"""`eval` on the device against the CPU, clip by clip."""

from __future__ import annotations

from collections.abc import Iterator

from avloc.evaluate.options import EvalOptions
from avloc.evaluate.records import ClipRow
from avloc.evaluate.run import evaluate
from tests.eval_makers import to_clip, write
from tests.gpu.results import Options, Row, at_most, equal
from tests.gpu.runs import run
from tests.synthetic_scenes import scenes

_CLOSE = 1e-3


def evaluation(options: Options) -> Iterator[Row]:
    """CIoU of each clip in fp32, by a model of two epochs."""
    model = run(options, "scored", 2, "cpu")
    store = write(options.work / "test", [to_clip(scene) for scene in scenes(8, held_out=True, seed=3)])

    def rows(device: str) -> dict[str, ClipRow]:
        wanted = EvalOptions(store=store, models=(model,), maps=("av",), device=device, workers=0)
        return {row.id: row for row in evaluate(wanted).reports[0].clips}

    mine, theirs = rows(options.device.type), rows("cpu")
    yield equal("eval: clips", str(len(mine)), str(len(theirs)))
    for name in ("ciou", "area_ciou"):
        largest = max(abs(getattr(mine[i].scores["av"], name) - getattr(theirs[i].scores["av"], name)) for i in theirs)
        yield at_most(f"eval: largest difference of a clip's {name}", largest, _CLOSE)
