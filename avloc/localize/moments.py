"""Which moments of an input are wanted, and their pictures and sounds, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.files import ordinary_bytes
from avloc.media import (
    SoundWindow,
    decode_picture,
    is_picture,
    read_frame,
    read_moment,
    read_sound,
)
from avloc.media.containers import opened, picture_stream, scanned_extent_s, stream_extent_s
from avloc.media.reels import play, play_sound
from avloc.media.videos import STAMP_S

_LEAST_STEP_S = 0.01
_SEEK_S = 4.0
"""Times farther apart than this are sought one by one; between closer ones every picture is decoded."""


class Hears(Protocol):
    """How much of a sound is heard: `seconds` of it, at `rate` Hz (0: the sound's own)."""

    @property
    def seconds(self) -> float:
        """Length of the sound."""

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and the sound heard with it."""

    frame: NDArray[np.uint8]
    """[H, W, 3] RGB as shown."""
    sound: SoundWindow
    time_s: float = 0.0
    """When the picture appears in its video, in seconds; 0 for a picture."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """The moments wanted of a video, in seconds on its timeline. Nothing given: its middle."""

    at: float | None = None
    """One moment."""
    every: float | None = None
    """A moment each so many seconds, from `start` on."""
    start: float | None = None
    """Nothing before this; the start of the video if None."""
    end: float | None = None
    """Nothing at or after this; the end of the video if None."""
    several: int = 1
    """How many moments, evenly spread, where neither `at` nor `every` says."""

    def __post_init__(self) -> None:
        for name in ("at", "start", "end"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"--{name} {value:g} is impossible; valid: 0 seconds or more")
        if self.every is not None and not (math.isfinite(self.every) and self.every >= _LEAST_STEP_S):
            raise UsageError(f"--every {self.every:g} is impossible; valid: {_LEAST_STEP_S:g} seconds or more")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UsageError(f"--end {self.end:g} is not after the start, {self.start or 0.0:g} s")
        if self.at is not None and (self.every, self.start, self.end) != (None, None, None):
            raise UsageError("--at is one moment and goes without --every, --start and --end")

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return (self.at, self.every, self.start, self.end) != (None,) * 4

    def of(self, source: Path) -> list[float | None]:
        """The moments of a video; None is its middle.

        Raises:
            InputError: it cannot be read, or ends before `start`.
        """
        if self.at is not None or (self.several == 1 and not self.given):
            return [self.at]
        first, last = _extent(source)
        start = max(first, self.start or 0.0)
        end = last if self.end is None else min(self.end, last)
        if start >= end:
            raise InputError(f"has no picture from {start:g} s on: the video ends at {last:.3f} s")
        if self.every is None:
            return [start + (part + 0.5) * (end - start) / self.several for part in range(self.several)]
        count = max(1, math.ceil((end - start - STAMP_S) / self.every))
        return [start + index * self.every for index in range(count)]


def _extent(source: Path) -> tuple[float, float]:
    with opened(source) as container:
        stream = picture_stream(container)
        return stream_extent_s(container, stream) or scanned_extent_s(container, stream)


def scene_times(source: Path, times: Times, audio: Path | None) -> list[float | None]:
    """The moments of an input, ascending, decoding nothing; None is the middle of a video, or a picture.

    Raises:
        InputError: a picture without sound or with times, or the file cannot be read.
    """
    if not is_picture(source):
        return times.of(source)
    if audio is None:
        raise InputError("a picture has no sound; give it one with --audio")
    if times.given:
        raise InputError("is a picture and has no times; --at, --every, --start and --end are for videos")
    return [None]


def scenes_at(source: Path, times_s: Sequence[float | None], hears: Hears, audio: Path | None) -> Iterator[Scene]:
    """The scenes of an input at its `scene_times` or some of them; one at a time is in memory.

    Args:
        source: a video, or a picture with `audio`.
        times_s: ascending.
        hears: length and rate of the sound.
        audio: a file whose sound is heard; None takes the video's own.

    Raises:
        InputError: no picture, no sound, a time past the end, or the file cannot be decoded.
    """
    wanted = [time_s for time_s in times_s if time_s is not None]
    if wanted:
        yield from _played(source, wanted, hears, audio)
    elif times_s:
        yield _middle(source, hears, audio)


def _middle(source: Path, hears: Hears, audio: Path | None) -> Scene:
    if audio is None:
        moment = read_moment(source, seconds=hears.seconds, rate=hears.rate)
        return Scene(frame=moment.picture, sound=moment.sound, time_s=moment.time_s)
    if is_picture(source):
        frame = decode_picture(ordinary_bytes(source))
        return Scene(frame=frame, sound=read_sound(audio, seconds=hears.seconds, rate=hears.rate))
    frame, shown_s = read_frame(source)
    return Scene(frame=frame, sound=next(_sounds(source, [shown_s], hears, audio)), time_s=shown_s)


def _played(source: Path, times_s: list[float], hears: Hears, audio: Path | None) -> Iterator[Scene]:
    sounds = _sounds(source, times_s, hears, audio)
    for sound, (frame, shown_s) in zip(sounds, _frames(source, times_s), strict=True):
        yield Scene(frame=frame, sound=sound, time_s=shown_s)


def _sounds(source: Path, times_s: list[float], hears: Hears, audio: Path | None) -> Iterator[SoundWindow]:
    """Windows around the times; a separate sound that ends before its video is followed by silence."""
    clip_end_s = _extent(source)[1] if audio else 0.0
    return play_sound(audio or source, times_s, seconds=hears.seconds, rate=hears.rate, clip_end_s=clip_end_s)


def _frames(source: Path, times_s: list[float]) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """The pictures shown at the times and when each appears: in one pass where they are close, else by seeking."""
    if len(times_s) < 2 or times_s[1] - times_s[0] > _SEEK_S:
        yield from (read_frame(source, at=time_s) for time_s in times_s)
        return
    frame, first_s = read_frame(source, at=times_s[0])
    yield frame, first_s
    screens = play(source, start_s=times_s[0])
    screen, shown_s = next(screens), first_s
    for time_s in times_s[1:]:
        while screen.end <= time_s + STAMP_S and (following := next(screens, None)) is not None:
            screen, shown_s = following, float(following.start)
        yield screen.picture(), shown_s
