"""Features of events, second by second, as the teachers left them in a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.methods.events import Features
from avloc.store import Hints, Store
from avloc.store.events import HEARD, POOLED, SEEN, EventRow, EventTable
from avloc.store.hints import hint_folder


class EventSet:
    """Rows of a table with their features, read a batch at a time.

    Args:
        folder: the store.
        table: its events.
        rows: those that are meant; rows of clips of which there are no features are left out (`without`).
        pooled: take the published means over cells where they are there.

    Raises:
        Refused: there are no features, of another shape, or they are unfinished.
    """

    def __init__(self, folder: Path, table: EventTable, rows: Sequence[EventRow], *, pooled: bool = False) -> None:
        has_means = hint_folder(folder, POOLED).is_dir()
        seen = POOLED if pooled and has_means else SEEN
        if has_means and not pooled and not hint_folder(folder, SEEN).is_dir():
            hint = "Prepare it with visual_feature.h5 beside the other files."
            raise Refused(f"{folder} has the means over the cells of pictures alone, not the cells", hint=hint)
        self.heard, self.seen = Hints(folder, HEARD), Hints(folder, seen)
        for hints, axes in ((self.heard, 2), (self.seen, 4)):
            if len(hints.stamp["shape"]) != axes:
                reason = f"the hints of {hints.stamp['teacher']} in {folder} are not of single seconds"
                raise Refused(reason, hint=f"Delete {hints.folder}, and run avloc distill-cache again.")
        there = [row for row in rows if row.clip in self.heard.shards and row.clip in self.seen.shards]
        _check_finished(folder, (self.heard, self.seen), rows)
        self.rows, self.without = there, len(rows) - len(there)
        self.classes = torch.from_numpy(table.clip_classes(there))
        self.labels, self.background = torch.from_numpy(table.labels(there)), len(table.classes)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Sequence[int]) -> Features:
        """The features of some rows, in float32.

        Raises:
            Refused: a shard is damaged.
        """
        clips = [self.rows[position].clip for position in positions]
        visual, audio = (np.stack([_value(hints, clip) for clip in clips]) for hints in (self.seen, self.heard))
        return Features(
            visual=torch.from_numpy(visual).float(),
            audio=torch.from_numpy(audio).float(),
            labels=self.labels[list(positions)],
            clips=self.classes[list(positions)],
            background=self.background,
        )


def _value(hints: Hints, clip: str) -> NDArray[np.float16]:
    value = hints.read(clip)
    if value is None:
        raise Refused(f"{hints.folder} has no features of {clip}", hint="Delete the folder to make them anew.")
    return value


def _check_finished(folder: Path, both: Sequence[Hints], rows: Sequence[EventRow]) -> None:
    """Clips of which a teacher never was asked are not left out in silence; those that cannot be decoded are.

    Raises:
        Refused: there are such clips.
    """
    stored = set(Store(folder).ids)
    for hints in both:
        absent = [row.clip for row in rows if row.clip not in hints.shards]
        unexplained = [clip for clip in absent if clip not in hints.failed and (hints.imported or clip in stored)]
        if unexplained:
            teacher = hints.stamp["teacher"]
            again = (
                "prepare the folder again" if hints.imported else f"avloc distill-cache {folder} --teacher {teacher}"
            )
            reason = f"{len(unexplained)} of {len(rows)} rows have no hints of {teacher}, first {unexplained[0]}"
            raise Refused(reason, hint=f"Finish them: {again}.")
