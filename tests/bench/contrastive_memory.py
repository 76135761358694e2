"""One contrastive loss in a process of its own: `python -m tests.bench.contrastive_memory WHO BATCH DIM`.

Prints the seconds of a forward and a backward pass, and by how much resident memory grew at its peak, as JSON. The peak
is Linux's own count, set back before.
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
    """Unit vectors of cells and sounds that ask for gradients."""
    image = F.normalize(torch.randn(batch, dim, *CELLS), dim=1).requires_grad_()
    return image, F.normalize(torch.randn(batch, dim), dim=1).requires_grad_()


def resident_mb(kind: str) -> float:
    """`VmRSS`, what is resident now, or `VmHWM`, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def main(who: str, batch: int, dim: int) -> None:
    """Measure once, after a small pass that starts threads and loads kernels."""
    LOSSES[who](*inputs(8, 8)).backward()
    image, audio = inputs(batch, dim)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
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
