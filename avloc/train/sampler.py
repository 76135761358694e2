"""The clips of each training step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avloc.distributed import ALONE, Peers


class EpochBatches:
    """Batches of positions for all epochs in one stream, starting at any step; the last, smaller batch is dropped.

    The order of an epoch depends only on seed and epoch, so a run can be resumed at any step, with any number of
    loader processes.

    Args:
        clips: number of clips; fewer than `batch` make one batch.
        batch: clips per batch.
        seed: seed of the run.
        epochs: number of epochs.
        first_step: steps to skip at the start.
        peers: processes that share each batch; the stream holds this one's part.
    """

    def __init__(
        self, clips: int, batch: int, seed: int, epochs: int, first_step: int = 0, peers: Peers = ALONE
    ) -> None:
        self.clips, self.batch, self.seed = clips, min(batch, clips), seed
        self.peers = peers
        self.steps_per_epoch = clips // self.batch
        self.first_step, self.steps = first_step, epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        first_epoch = self.first_step // self.steps_per_epoch
        for epoch in range(first_epoch, self.steps // self.steps_per_epoch):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.clips)
            skipped = self.first_step % self.steps_per_epoch if epoch == first_epoch else 0
            for place in range(skipped, self.steps_per_epoch):
                batch = order[place * self.batch : (place + 1) * self.batch]
                yield batch[self.peers.share(len(batch))].tolist()
