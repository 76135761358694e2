"""Which event each second of a clip holds, and where in one modality the event of the other lies: what is right.

Classes are numbers, background last. *Accuracy* is the share of seconds that are told right, background among them.
In *matching*, the seconds of an event in one modality are given and a window of as many seconds is searched in the
other; it is right where it starts exactly with the event.

Source: Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, and its scripts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion(told: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How many seconds of each class were told to be of each class.

    Args:
        told: [...] numbers of classes.
        truth: the same shape.
        classes: how many there are, K, background among them.

    Returns:
        [K, K] int64: row what is true, column what was told.
    """
    pairs = truth.astype(np.int64).ravel() * classes + told.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def accuracy(counts: NDArray[np.int64]) -> float:
    """Share of the seconds in a confusion matrix that were told right; NaN for none."""
    return float(counts.trace() / counts.sum()) if counts.sum() else float("nan")


def class_accuracies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[K] the same for the seconds of each class; NaN for a class that has none."""
    seconds = counts.sum(1)
    shares: NDArray[np.float64] = np.divide(
        counts.diagonal(), seconds, out=np.full(len(counts), np.nan), where=seconds > 0
    )
    return shares


def majority_accuracy(truth: NDArray[np.int64]) -> float:
    """Accuracy of whoever says the commonest class of `truth` for every second; NaN for none."""
    return float(np.bincount(truth.ravel()).max() / truth.size) if truth.size else float("nan")


def background_accuracy(truth: NDArray[np.int64], classes: int) -> float:
    """Accuracy of whoever says background, the last of `classes`, for every second; NaN for none."""
    return float((truth == classes - 1).mean()) if truth.size else float("nan")


def window_sums(distance: NDArray[np.floating], event: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Summed distance of an event of one modality to every window of the other.

    Args:
        distance: [T, T], second of the picture by second of the sound.
        event: [T] bool, True in one run of seconds.

    Returns:
        [2, T] by the second in which the window starts, NaN where it would end behind the clip. First the event of the
        sound, searched in the picture; then the reverse. None where there is nothing to search: no event, or one that
        fills the clip.

    Raises:
        ValueError: the event has gaps.
    """
    seconds = np.flatnonzero(event)
    length, clip = len(seconds), len(event)
    if length in (0, clip):
        return None
    if seconds[-1] - seconds[0] >= length:
        raise ValueError("an event is one run of seconds")
    sums = np.full((2, clip), np.nan)
    for start in range(clip - length + 1):
        window = slice(start, start + length)
        for row, by_given in enumerate((distance, distance.T)):
            sums[row, start] = by_given[window][:, seconds].diagonal().sum(dtype=np.float64)
    return sums


def window_starts(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """[2] second in which the nearest window starts, the earliest of several; `sums` as `window_sums` gives them."""
    starts: NDArray[np.int64] = np.where(np.isnan(sums), np.inf, sums).argmin(1)
    return starts


def matched(sums: NDArray[np.float64], event: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[2] whether the nearest window starts with the event. A distance that is no number finds nothing.

    Args:
        sums: as `window_sums` gives them.
        event: [T] bool, True in one run of seconds.
    """
    starts = window_starts(sums)
    found: NDArray[np.bool_] = (starts == np.argmax(event)) & np.isfinite(sums[[0, 1], starts])
    return found


def chance_of_match(events: NDArray[np.bool_]) -> float:
    """Accuracy that a window at random has on average: the mean of one over the number of windows.

    Args:
        events: [n, T] bool, True in one run of seconds. Clips that `window_sums` leaves out are left out.

    Returns:
        NaN if no clip is left.
    """
    lengths = events.sum(1)
    searched = lengths[(lengths > 0) & (lengths < events.shape[1])]
    return float((1 / (events.shape[1] - searched + 1)).mean()) if len(searched) else float("nan")
