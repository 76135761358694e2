"""Accuracy of event localization per second, and of cross-modal matching.

Classes are numbers, background last. Background counts as a class of its own.
In *matching*, the seconds of an event in one modality are given and a window of as many seconds is searched in the
other; it is correct if it starts exactly with the event.

Source: Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018, and its scripts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion(predicted: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Confusion matrix in seconds.

    Args:
        predicted: [...] class numbers.
        truth: the same shape.
        classes: number of classes, K, including background.

    Returns:
        [K, K] int64: rows true classes, columns predicted ones.
    """
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def accuracy(predicted: NDArray[np.int64] | int, truth: NDArray[np.int64]) -> float:
    """Share of the seconds with the right class, which may be one for all of them; NaN for no seconds."""
    return float((truth == predicted).mean()) if truth.size else float("nan")


def class_accuracies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Accuracy [K] on the seconds of each class; NaN for a class without seconds."""
    seconds = counts.sum(1)
    shares: NDArray[np.float64] = np.divide(
        counts.diagonal(), seconds, out=np.full(len(counts), np.nan), where=seconds > 0
    )
    return shares


def majority_accuracy(truth: NDArray[np.int64]) -> float:
    """Accuracy of predicting the commonest class of `truth` for every second; NaN for no seconds."""
    return float(np.bincount(truth.ravel()).max() / truth.size) if truth.size else float("nan")


def window_sums(distance: NDArray[np.floating], event: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Summed distance of an event of one modality to every window of the other.

    Args:
        distance: [T, T], second of video by second of audio.
        event: [T] bool, True in consecutive seconds.

    Returns:
        [2, T] by the second in which the window starts, NaN where it would end after the clip. Row 0: the event of the
        audio is searched in the video; row 1: the reverse. None if there is no event, or it fills the clip.

    Raises:
        ValueError: the event has gaps.
    """
    seconds = np.flatnonzero(event)
    length, clip = len(seconds), len(event)
    if length in (0, clip):
        return None
    if seconds[-1] - seconds[0] >= length:
        raise ValueError("the seconds of an event must be consecutive")
    sums = np.full((2, clip), np.nan)
    for start in range(clip - length + 1):
        window = slice(start, start + length)
        for row, by_given in enumerate((distance, distance.T)):
            sums[row, start] = by_given[window][:, seconds].diagonal().sum(dtype=np.float64)
    return sums


def nearest_windows(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """Second [2] in which the nearest window starts, the earliest of several; `sums` as `window_sums` returns them."""
    starts: NDArray[np.int64] = np.where(np.isnan(sums), np.inf, sums).argmin(1)
    return starts


def matched(sums: NDArray[np.float64], event: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the nearest window of `window_sums` starts with the event [2]; False if its distance is not finite."""
    starts = nearest_windows(sums)
    found: NDArray[np.bool_] = (starts == np.argmax(event)) & np.isfinite(sums[[0, 1], starts])
    return found


def chance_of_match(events: NDArray[np.bool_]) -> float:
    """Expected accuracy of a random window: the mean of one over the number of windows; NaN for no clips.

    Args:
        events: [n, T] bool, True in consecutive seconds. Clips for which `window_sums` returns None are left out.
    """
    lengths = events.sum(1)
    searched = lengths[(lengths > 0) & (lengths < events.shape[1])]
    return float((1 / (events.shape[1] - searched + 1)).mean()) if len(searched) else float("nan")
