"""Time PANNs and DETR alone in a separate process: `python -m tests.bench.teachers_run WEIGHTS CLIPS`.

Runs avloc's networks in fp32 on one batch each in memory, as often as that many clips need, after one warm-up, and
prints the seconds by the clock and those of the processor.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path


def forward(weights: str, clips: str) -> None:
    """Run the networks on as many random inputs as there are clips."""
    import torch

    from avloc.malloc import keep_freed_memory
    from avloc.networks.base import deterministic_inference
    from avloc.networks.cnn14 import embed, load_cnn14
    from avloc.networks.detr import CONFIDENCE, SIDE, attention_maps, load_detr
    from avloc.teachers.detr import DetrTeacher
    from avloc.teachers.panns import PannsTeacher
    from avloc.weights import CNN14, DETR
    from tests.bench.material import SECONDS

    keep_freed_memory()
    panns, detr = load_cnn14(CNN14.under(Path(weights))), load_detr(DETR.under(Path(weights)))
    sounds = 0.1 * torch.randn(PannsTeacher.batch_size, int(SECONDS * PannsTeacher.rate))
    frames = 255 * torch.rand(DetrTeacher.batch_size, 3, SIDE, SIDE)
    with deterministic_inference():
        runs = {
            PannsTeacher: lambda: embed(panns, sounds),
            DetrTeacher: lambda: attention_maps(detr, frames, confidence=CONFIDENCE),
        }
        for run in runs.values():
            run()
        wall, processor = time.perf_counter(), time.process_time()
        for teacher, run in runs.items():
            for _ in range(math.ceil(int(clips) / teacher.batch_size)):
                run()
    print(time.perf_counter() - wall, time.process_time() - processor)


if __name__ == "__main__":
    forward(*sys.argv[1:])
