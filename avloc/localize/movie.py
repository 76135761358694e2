"""Drawn pictures of a video into an MP4, one after another, with its time stamps and its sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.media import MovieWriter, TimedFrame, movie_codec
from avloc.progress import Listener, Notice


@dataclass(frozen=True, kw_only=True)
class Movie:
    """What was written."""

    frames: int
    duration_s: float
    """From the first picture to the end of the last one."""
    has_sound: bool


def write_movie(
    part: Path,
    pictures: Iterator[TimedFrame],
    drawn: Callable[[TimedFrame], NDArray[np.uint8]],
    *,
    sound: Path,
    track: int | None = None,
    whole_sound: bool = True,
    origin: Fraction = Fraction(0),
) -> Movie:
    """Draw each picture and write it.

    Args:
        part: the MP4.
        pictures: at least one.
        drawn: the picture as it is to be, [H, W, 3], all of one size.
        sound: file whose sound is copied, or encoded where an MP4 cannot hold it.
        track: which of its sound tracks, counted from 1; None is the main one.
        whole_sound: to its end, and not to that of the pictures.
        origin: time that becomes the movie's zero.

    Raises:
        InputError: it cannot be decoded.
    """
    first = last = next(pictures)
    picture, frames = drawn(first), 1
    size = (picture.shape[0], picture.shape[1])
    with MovieWriter(part, first, size, sound=sound, track=track, whole_sound=whole_sound, origin=origin) as writer:
        writer.write(picture, first.start, first.end)
        for last in pictures:
            writer.write(drawn(last), last.start, last.end)
            frames += 1
        return Movie(frames=frames, duration_s=float(last.end - first.start), has_sound=writer.has_sound)


def tell_codec(out: Path, listener: Listener) -> None:
    """Say so where the movie will not be H.264."""
    if movie_codec() != "libx264":
        listener(Notice(f"{out}: PyAV was built without H.264; the video is MPEG-4 part 2"))
