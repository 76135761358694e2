"""Measure one contrastive loss in a separate process: `python -m tests.bench.contrastive_memory WHO BATCH DIM`.

Prints the duration in seconds of a forward and a backward pass and the growth of peak resident memory, as JSON. The
peak is Linux's own counter, which is reset before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from avloc.losses import contrastive
from tests.bench import reference
from tests.bench.timing import lap

CELLS = (7, 7)
LOSSES = {
    "reference": reference.contrastive,
    "avloc": lambda image, audio: contrastive(image, audio, reference.TAU),
}


def inputs(batch: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of image cells [B, D, 7, 7] and sounds [B, D] that require gradients."""
    image = F.normalize(torch.randn(batch, dim, *CELLS), dim=1).requires_grad_()
    return image, F.normalize(torch.randn(batch, dim), dim=1).requires_grad_()


def resident_mb(kind: str) -> float:
    """Resident memory in MiB: `VmRSS` now, or `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def main(who: str, batch: int, dim: int) -> None:
    """Measure once, after a small warm-up pass that starts threads and loads kernels."""
    LOSSES[who](*inputs(8, 8)).backward()
    image, audio = inputs(batch, dim)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, losses = resident_mb("VmRSS"), []

    def step() -> None:
        loss = LOSSES[who](image, audio)
        loss.backward()
        losses.append(loss.item())

    spent = lap(step)
    grown_mb = resident_mb("VmHWM") - before
    print(json.dumps({**spent._asdict(), "grown_mb": grown_mb, "loss": losses[0]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
