"""Which event is where in which clip of a store: `events.json`, beside `store.json`.

A row is one annotation of AVE; two rows may be about one clip. Rows of background alone are sounds and pictures that do
not belong together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.annotations.ave import SECONDS, AveRow
from avloc.errors import Refused
from avloc.files import json_text, read_json_object, write_json
from avloc.store.clips import StoreHeader

EVENTS = "events.json"
HEARD, SEEN, POOLED = "vggish", "vgg19", "vgg19-pooled"
"""Teachers whose hints events are learned from: sounds, cells of pictures, and the mean over a picture's cells."""
BACKGROUND = "background"
NOISE = "noise"
"""Split of the rows of background alone, with which weakly supervised training is mixed."""
SPLITS = ("train", "val", "test", NOISE, "")
WINDOW, FIRST = "window", "first"
"""In the provenance of a store whose clips are prepared for events: the first seconds of each video."""
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One annotation."""

    clip: str
    """Id of the clip, by which hints are found."""
    said: AveRow
    split: str = ""
    """Part of the published split for telling events; '' in none."""
    match: str = ""
    """Part of the published split for cross-modal matching."""


@dataclass(frozen=True, kw_only=True)
class EventTable:
    """All annotations of a store."""

    classes: tuple[str, ...]
    """Names of the events; background is the class behind the last."""
    rows: tuple[EventRow, ...]

    @staticmethod
    def of(folder: Path) -> EventTable:
        """Read and check `events.json`.

        Raises:
            Refused: it is not there, or cannot be used.
        """
        path = folder / EVENTS
        if not path.is_file():
            hint = f"Make it: avloc prepare AVE_FOLDER --layout ave --out {folder}"
            raise Refused(f"{folder} is no store of events: it has no {EVENTS}", hint=hint)
        data = read_json_object(path)
        try:
            if data["schema"] != _SCHEMA:
                raise ValueError(f"schema {data['schema']}; this avloc reads {_SCHEMA}")
            rows = tuple(EventRow(**{**row, "said": AveRow(**row["said"])}) for row in data["rows"])
            table = EventTable(classes=tuple(data["classes"]), rows=rows)
            table.check()
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{path} is not a readable table of events: {error!r}") from error
        return table

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a store is one of events.

        Raises:
            Refused: it is to become one, and `prepare` was stopped before it was.
        """
        if (folder / EVENTS).is_file():
            return True
        if StoreHeader.read(folder).provenance.get(WINDOW) == FIRST:
            reason = f"{folder} has the clips of events, but no {EVENTS} yet"
            raise Refused(reason, hint="Run `avloc prepare --layout ave` again: it goes on where it was stopped.")
        return False

    def check(self) -> None:
        """What a file says has to make sense.

        Raises:
            ValueError: it does not.
        """
        if not all(isinstance(name, str) for name in self.classes) or len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is no text, or stands there twice")
        if BACKGROUND in self.classes:
            raise ValueError(f"a class is called {BACKGROUND}, which is what is left where there is none")
        videos: dict[str, str] = {}
        for row in self.rows:
            said = row.said
            texts = (row.clip, said.video, said.category, said.quality)
            if not all(isinstance(text, str) for text in texts) or {row.split, row.match} - set(SPLITS):
                raise ValueError(f"row {row} is none")
            if type(said.start) is not int or type(said.end) is not int or not 0 <= said.start <= said.end <= SECONDS:
                raise ValueError(f"row {row} is at no time")
            if videos.setdefault(row.clip, said.video) != said.video:
                raise ValueError(f"videos {said.video} and {videos[row.clip]} would both be clip {row.clip}")
            if row.split != NOISE and said.category not in self.classes:
                raise ValueError(f"row {row} is of no class")

    def write(self, folder: Path) -> None:
        """Write `events.json`."""
        rows = [asdict(row) for row in self.rows]
        write_json(folder / EVENTS, {"schema": _SCHEMA, "classes": list(self.classes), "rows": rows})

    def part(self, name: str, *, match: bool = False) -> list[EventRow]:
        """The rows of one part of the published split for telling events, or for matching."""
        return [row for row in self.rows if (row.match if match else row.split) == name]

    def labels(self, rows: Sequence[EventRow]) -> NDArray[np.int64]:
        """Class of every second, [rows, 10]; background is `len(classes)`."""
        out = np.full((len(rows), SECONDS), len(self.classes), np.int64)
        for number, row in enumerate(rows):
            if row.split != NOISE:
                out[number, row.said.start : row.said.end] = self.classes.index(row.said.category)
        return out

    def clip_classes(self, rows: Sequence[EventRow]) -> NDArray[np.int64]:
        """Class of every clip, [rows]: its category, whether or not it ever happens; background for noise."""
        background = len(self.classes)
        return np.array(
            [background if row.split == NOISE else self.classes.index(row.said.category) for row in rows], np.int64
        )

    def hash(self) -> str:
        """Hex digest of everything it says."""
        return hashlib.sha256(
            json_text({"classes": self.classes, "rows": list(map(asdict, self.rows))}).encode()
        ).hexdigest()
