"""One epoch, or what it computes, in a process of its own: `python -m tests.bench.epoch_run STAGE ...`.

* `reference MEDIA HINTS BATCH WORKERS`: the reference's loop over media files and `.npy` hints, with a checkpoint.
* `steps STORE PRECISION BATCH COUNT`: avloc's steps on one batch in memory, after a first one that does not count;
  prints what they took in seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def reference(media: str, hints: str, batch: str, workers: str) -> None:
    """From files to a checkpoint beside them."""
    import torch
    from torch.utils.data import DataLoader

    from avloc.config import TrainConfig
    from tests.bench.reference import ReferenceClips, ReferenceNet, optimiser_of, training_step

    ids = sorted(path.stem for path in (Path(media) / "frames").iterdir())
    clips = ReferenceClips(Path(media), ids, hints=Path(hints))
    how = {"batch_size": int(batch), "shuffle": True, "drop_last": True, "num_workers": int(workers)}
    network = ReferenceNet(TrainConfig().model.dim).train()
    optimiser = optimiser_of(network)
    for loaded in DataLoader(clips, collate_fn=ReferenceClips.collate, **how):
        training_step(network, optimiser, loaded)
    torch.save({"model": network.state_dict(), "optimizer": optimiser.state_dict()}, Path(media) / "latest.pth")


def steps(store: str, precision: str, batch: str, count: str) -> None:
    """The same batch again and again."""
    from avloc.config import TrainConfig
    from avloc.memory import keep_freed
    from avloc.store import Store
    from tests.bench.rows_training import our_batch, our_step

    keep_freed()
    config = TrainConfig(batch=int(batch), epochs=1, init="random", workers=0)
    step = our_step(config, precision, our_batch(Store(Path(store)), config))
    step()
    began = time.perf_counter()
    for _ in range(int(count)):
        step()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    {"reference": reference, "steps": steps}[sys.argv[1]](*sys.argv[2:])
