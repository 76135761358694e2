"""The order of the clips: which of them each step of a run takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avloc.distributed import ALONE, Peers


@dataclass
class EpochBatches:
    """Batches of positions for all epochs in one stream, from `first_step` on; the last, smaller batch is dropped.

    The order of an epoch depends only on seed and epoch, so a run can be resumed at any step, with any number of
    loader processes. Fewer clips than `batch` make one batch. With `peers`, the stream has the rows of this process.
    """

    clips: int
    batch: int
    seed: int
    epochs: int
    first_step: int = 0
    peers: Peers = ALONE

    def __post_init__(self) -> None:
        self.batch = min(self.batch, self.clips)
        self.steps_per_epoch = self.clips // self.batch
        self.steps = self.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        first_epoch = self.first_step // self.steps_per_epoch
        for epoch in range(first_epoch, self.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.clips)
            skipped = self.first_step % self.steps_per_epoch if epoch == first_epoch else 0
            for place in range(skipped, self.steps_per_epoch):
                batch = order[place * self.batch : (place + 1) * self.batch]
                yield batch[self.peers.share(len(batch))].tolist()
