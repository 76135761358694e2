"""The event annotations of a store: `events.json`, beside `store.json`.

A row is one annotation of AVE; a clip may have several. Rows of noise are background throughout: their audio and video
are of different clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.ave.annotations import LABELS_KEY, SECONDS, AveRow, presence
from avloc.errors import Refused
from avloc.files import atomic_path, json_text, read_json_object, write_json
from avloc.store import WINDOW_KEY, StoreHeader

EVENTS = "events.json"
AUDIO_HINTS, VISUAL_HINTS, POOLED_HINTS = "vggish", "vgg19", "vgg19-pooled"
"""Teachers of the features: of audio, of the cells of frames, and of the mean over these cells."""
BACKGROUND = "background"
NOISE = "noise"
"""Split of the rows of noise, which weakly supervised training uses as negatives."""
SPLITS = ("train", "val", "test", NOISE, "")
FIRST_SECONDS = "first"
"""Value of `WINDOW_KEY` in a store of events: annotations count from the start of the video."""
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One annotation of a clip."""

    clip: str
    """Id of the clip, the key of its hints."""
    annotation: AveRow
    """The key in `events.json` is `said`."""
    split: str = ""
    """Published split for event localization; '' for none."""
    match: str = ""
    """Published split for cross-modal matching."""

    def as_json(self) -> dict[str, Any]:
        """The row as stored in `events.json`."""
        return {"clip": self.clip, "said": asdict(self.annotation), "split": self.split, "match": self.match}


@dataclass(frozen=True, kw_only=True)
class EventTable:
    """All annotations of a store."""

    classes: tuple[str, ...]
    """Names of the events; background is the class after the last."""
    rows: tuple[EventRow, ...]

    @staticmethod
    def of(folder: Path) -> EventTable:
        """Read and check `events.json`.

        Raises:
            Refused: it does not exist, or is invalid.
        """
        path = folder / EVENTS
        if not path.is_file():
            hint = f"Make it: avloc prepare AVE_FOLDER --layout ave --out {folder}"
            raise Refused(f"{folder} is not a store of events: it has no {EVENTS}", hint=hint)
        data = read_json_object(path)
        try:
            if data["schema"] != _SCHEMA:
                raise ValueError(f"schema {data['schema']}; this avloc reads {_SCHEMA}")
            entries = [dict(row) for row in data["rows"]]
            rows = tuple(EventRow(annotation=AveRow(**row.pop("said")), **row) for row in entries)
            table = EventTable(classes=tuple(data["classes"]), rows=rows)
            table.check()
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{path} is not a readable table of events: {error!r}") from error
        return table

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a store has events.

        Raises:
            Refused: `prepare --layout ave` was interrupted before it wrote them.
        """
        if (folder / EVENTS).is_file():
            return True
        if StoreHeader.read(folder).provenance.get(WINDOW_KEY) == FIRST_SECONDS:
            reason = f"{folder} has the clips of events, but no {EVENTS} yet"
            raise Refused(reason, hint="Run `avloc prepare --layout ave` again: it continues where it was stopped.")
        return False

    def check(self) -> None:
        """Raise a ValueError if rows contradict each other or the classes."""
        if not all(isinstance(name, str) for name in self.classes) or len(set(self.classes)) < len(self.classes):
            raise ValueError("a class name is not text, or is listed twice")
        if BACKGROUND in self.classes:
            raise ValueError(f"a class is called {BACKGROUND}, which is reserved for seconds without an event")
        videos: dict[str, str] = {}
        for row in self.rows:
            event = row.annotation
            texts = (row.clip, event.video, event.category, event.quality)
            if not all(isinstance(text, str) for text in texts) or {row.split, row.match} - set(SPLITS):
                raise ValueError(f"row {row} is invalid")
            whole = type(event.start) is int and type(event.end) is int
            if not whole or not 0 <= event.start <= event.end <= SECONDS:
                raise ValueError(f"row {row} has an invalid time")
            if videos.setdefault(row.clip, event.video) != event.video:
                raise ValueError(f"videos {event.video} and {videos[row.clip]} would both be clip {row.clip}")
            if row.split != NOISE and event.category not in self.classes:
                raise ValueError(f"row {row} has an unknown category")

    def write(self, folder: Path) -> None:
        """Write `events.json`."""
        rows = [row.as_json() for row in self.rows]
        write_json(folder / EVENTS, {"schema": _SCHEMA, "classes": list(self.classes), "rows": rows})

    def write_labels(self, path: Path) -> None:
        """Write `labels.h5` of the authors' training script: one-hot class per second [rows, 10, classes + 1].

        It has no rows of noise.
        """
        import h5py

        labels = self.labels([row for row in self.rows if row.split != NOISE])
        with atomic_path(path) as part, h5py.File(part, "w", locking=False) as file:
            file[LABELS_KEY] = np.eye(len(self.classes) + 1, dtype=np.float32)[labels]

    def part(self, name: str, *, match: bool = False) -> list[EventRow]:
        """The rows of one part of the published split for event localization, or for matching."""
        return [row for row in self.rows if (row.match if match else row.split) == name]

    def labels(self, rows: Sequence[EventRow]) -> NDArray[np.int64]:
        """Class of every second [rows, 10]; background is `len(classes)`."""
        present = presence([row.annotation for row in rows]) > 0
        return np.where(present, self.clip_classes(rows)[:, None], len(self.classes))

    def clip_classes(self, rows: Sequence[EventRow]) -> NDArray[np.int64]:
        """Class of every clip [rows]: its category, even if no second is labelled with it; background for noise."""
        background = len(self.classes)
        return np.array(
            [background if row.split == NOISE else self.classes.index(row.annotation.category) for row in rows],
            np.int64,
        )

    def hash(self) -> str:
        """SHA-256 hex digest of classes and rows."""
        table = {"classes": self.classes, "rows": [row.as_json() for row in self.rows]}
        return hashlib.sha256(json_text(table).encode()).hexdigest()
