"""The events of one video, second by second.

Shape letters: T seconds, K classes, background last.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive seconds with the same event."""

    event: str
    start: int
    end: int
    """The second after the last."""
    confidence: float
    """Mean probability of the event in its seconds."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Predicted events and attention of every second of a video."""

    classes: tuple[str, ...]
    """Background last."""
    probabilities: NDArray[np.float32]
    """[T, K]."""
    attention: NDArray[np.float32]
    """[T, 7, 7]; the weights of a second add up to 1."""
    pictures: NDArray[np.uint8]
    """[T, 112, 112, 3] frames from the middle of each second, stretched to a square."""
    aspect: float
    """Width of the video divided by its height."""
    silent: NDArray[np.bool_]
    """[T] seconds of digital silence, or after the end of the audio."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[T] the most probable class of each second; background where it is silent."""
        background = len(self.classes) - 1
        return np.where(self.silent, background, self.probabilities.argmax(1))

    @property
    def spans(self) -> list[Span]:
        """The events in order, without background."""
        out, start = [], 0
        for number, run in groupby(self.predicted.tolist()):
            end = start + len(list(run))
            if number != len(self.classes) - 1:
                mean = float(self.probabilities[start:end, number].mean())
                out.append(Span(event=self.classes[number], start=start, end=end, confidence=round(mean, 4)))
            start = end
        return out

    def as_json(self) -> dict[str, Any]:
        """Events and seconds for a line of JSON; times in seconds, places in fractions of the frame."""
        per_second = [
            {
                "second": second,
                "event": self.classes[number],
                "silent": bool(quiet),
                "probability": None if quiet else round(float(self.probabilities[second, number]), 4),
                "attention_peak_xy": None if quiet else _peak(self.attention[second]),
            }
            for second, (number, quiet) in enumerate(zip(self.predicted.tolist(), self.silent, strict=True))
        ]
        return {"seconds": len(per_second), "events": [vars(span) for span in self.spans], "per_second": per_second}


def _peak(attention: NDArray[np.float32]) -> list[float]:
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    height, width = attention.shape
    return [round((int(column) + 0.5) / width, 4), round((int(row) + 0.5) / height, 4)]
