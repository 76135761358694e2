"""Reads the features per second of a store's clips, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from avloc.ave.event_table import AUDIO_HINTS, POOLED_HINTS, VISUAL_HINTS, EventRow, EventTable
from avloc.ave.networks import Features
from avloc.errors import Refused
from avloc.progress import Listener, Progress, silent
from avloc.store import Hints, Store
from avloc.store.hints import hint_folder

_BATCH = 64  # rows of a batch of evaluation


class EventSet:
    """Rows of a table with their features, read a batch at a time.

    Args:
        folder: the store.
        table: its events.
        rows: rows of the table; those of clips without features are left out and counted in `n_missing`.
        pooled: prefer the published means over cells.

    Raises:
        Refused: the features are absent, incomplete or of another shape.
    """

    def __init__(self, folder: Path, table: EventTable, rows: Sequence[EventRow], *, pooled: bool = False) -> None:
        has_means = hint_folder(folder, POOLED_HINTS).is_dir()
        if has_means and not pooled and not hint_folder(folder, VISUAL_HINTS).is_dir():
            hint = "Prepare it with visual_feature.h5 beside the other files."
            raise Refused(f"{folder} has only the means over the cells of frames, not the cells", hint=hint)
        self.audio = Hints(folder, AUDIO_HINTS)
        self.visual = Hints(folder, POOLED_HINTS if pooled and has_means else VISUAL_HINTS)
        for hints, axes in ((self.audio, 2), (self.visual, 4)):
            if len(hints.stamp["shape"]) != axes:
                reason = f"the hints of {hints.stamp['teacher']} in {folder} are not per second"
                raise Refused(reason, hint=f"Delete {hints.folder}, and run avloc distill-cache again.")
        stored = set(Store(folder).ids)
        for hints in (self.audio, self.visual):  # released features are of all rows, others of the videos in the store
            hints.check_finished([row.clip for row in rows if hints.imported or row.clip in stored])
        self.rows = [row for row in rows if row.clip in self.audio.shards and row.clip in self.visual.shards]
        self.n_missing = len(rows) - len(self.rows)
        self.classes, self.labels = map(torch.from_numpy, (table.clip_classes(self.rows), table.labels(self.rows)))
        self.background = len(table.classes)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Sequence[int]) -> Features:
        """The features of the rows at some positions, in float32.

        Raises:
            Refused: a shard is damaged.
        """
        clips = [self.rows[position].clip for position in positions]
        return Features(
            visual=_stacked(self.visual, clips),
            audio=_stacked(self.audio, clips),
            labels=self.labels[list(positions)],
            clips=self.classes[list(positions)],
            background=self.background,
        )

    def batches(self, listener: Listener = silent) -> Iterator[tuple[slice, Features]]:
        """All rows in batches: their positions and features; `listener` receives progress."""
        for start in range(0, len(self), _BATCH):
            stop = min(start + _BATCH, len(self))
            yield slice(start, stop), self.batch(range(start, stop))
            listener(Progress(task="eval", done=stop, total=len(self)))


def _stacked(hints: Hints, clips: Sequence[str]) -> torch.Tensor:
    values = []
    for clip in clips:
        if (value := hints.read(clip)) is None:
            reason = f"{hints.folder} has no features of {clip}"
            raise Refused(reason, hint="Delete the folder and compute them again.")
        values.append(value)
    return torch.from_numpy(np.stack(values)).float()
