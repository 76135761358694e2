"""A step in a process group of one process, NCCL on a GPU: `python -m tests.gpu.one_process_job OUT DEVICE`.

avloc starts no process group for one process; this checks that the collectives of a GPU run at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from avloc.distributed import ALONE, Peers, share_gradients, share_statistics
from avloc.engine import Engine
from tests.distributed_job import step


def share(engine: Engine) -> None:
    """What `Engine.share` does where there are several processes."""
    share_statistics(engine.model, Peers())
    engine._shared = share_gradients(engine._encoder)


def main() -> None:
    """Write loss terms and gradients to OUT."""
    out, device = Path(sys.argv[1]), torch.device(sys.argv[2])
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{out}.group", rank=0, world_size=1)
    for place in {"cpu", device.type}:
        values = torch.ones(3, device=place)
        dist.all_reduce(values)
        assert values.tolist() == [1.0] * 3
    torch.save(step(ALONE, vectors=False, device=device, share=share), out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
