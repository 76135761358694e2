"""Which moments of an input are wanted, and their pictures and sounds, one after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, UsageError
from avloc.files import read_input
from avloc.media import (
    Layout,
    SoundWindow,
    decode_picture,
    is_picture,
    probe,
    read_frame,
    read_sound,
    stream_frames,
    stream_sound,
)
from avloc.media.frame_decoder import TIMESTAMP_TOLERANCE_S

_LEAST_STEP_S = 0.01
_SEEK_S = 4.0
"""Times farther apart than this are sought one by one; between closer ones every picture is decoded."""


class WindowSpec(Protocol):
    """Which part of a sound a model takes: `seconds` of it, at `rate` Hz (0: the sound's own)."""

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
class SoundSource:
    """Which sound goes with the pictures of an input."""

    file: Path | None = None
    """A file of its own; None is the input itself."""
    name: str = ""
    """What errors call that file, as `--audio bark.wav`."""
    track: int | None = None
    """Which sound track, counted from 1; None is the main one."""

    def of(self, source: Path) -> Path:
        """The file with the sound."""
        return self.file or source

    @contextmanager
    def named(self) -> Iterator[None]:
        """An error of a sound file of its own names that file."""
        try:
            yield
        except InputError as error:
            if self.file is None:
                raise
            raise InputError(f"{self.name}: {error}") from error


OWN_SOUND = SoundSource()


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

    def of(self, layout: Layout) -> list[float]:
        """The moments of a video, as far as there are pictures.

        Raises:
            InputError: it ends before `start`.
        """
        if self.at is not None:
            return [self.at]
        if self.several == 1 and not self.given:
            return [layout.middle_s]
        first, last = layout.picture_extent
        start = max(first, self.start or 0.0)
        end = last if self.end is None else min(self.end, last)
        if start >= end:
            raise InputError(f"has no picture from {start:g} s on: the video ends at {last:.3f} s")
        if self.every is None:
            return [start + (part + 0.5) * (end - start) / self.several for part in range(self.several)]
        count = max(1, math.ceil((end - start - TIMESTAMP_TOLERANCE_S) / self.every))
        return [start + index * self.every for index in range(count)]


def scene_times(source: Path, times: Times, sound: SoundSource = OWN_SOUND) -> list[float | None]:
    """The moments of an input, ascending, decoding nothing; of a picture the place in its sound, None is the middle.

    Raises:
        InputError: a picture without sound or with times of a video, or the file cannot be read.
    """
    if not is_picture(source):
        return [*times.of(probe(source))]
    if sound.file is None:
        raise InputError("a picture has no sound; give it one with --audio")
    if (times.every, times.start, times.end) != (None, None, None):
        raise InputError("is a picture and has no times; --every, --start and --end are for videos")
    return [times.at]


def check_whole(source: Path, times: Times, sound: SoundSource = OWN_SOUND) -> None:
    """After all moments of an input.

    Raises:
        InputError: it, or a sound of its own, breaks off before the moments that were asked for are over; says where.
    """
    if times.at is not None:
        return
    if not is_picture(source):
        layout = probe(source)
        if layout.cut_off and (times.end is None or times.end > layout.picture_extent[1]):
            raise InputError(layout.cut_off)
    if sound.file is not None:
        with sound.named():
            layout = probe(sound.file, sound.track)
            if layout.cut_off and (times.end is None or times.end > layout.sound_extent[1]):
                raise InputError(layout.cut_off)


def remarks_on(window: SoundWindow) -> Iterator[str]:
    """What a person should know of a sound that was used."""
    if window.channel is not None:
        yield f"the channels of its sound all but cancel in their mean; channel {window.channel} alone is used"
    if window.lost_s:
        yield "some of its sound cannot be decoded, and is silent"


def scenes_at(
    source: Path, times_s: Sequence[float | None], spec: WindowSpec, sound: SoundSource = OWN_SOUND
) -> Iterator[Scene]:
    """The scenes of an input at its `scene_times` or some of them; one at a time is in memory.

    Args:
        source: a video, or a picture with a `sound` of its own.
        times_s: ascending.
        spec: length and rate of the sound.
        sound: which sound goes with the pictures.

    Raises:
        InputError: no picture, no sound, a time past the end, or the file cannot be decoded.
    """
    if is_picture(source):
        frame = decode_picture(read_input(source))
        for time_s in times_s:
            yield Scene(frame=frame, sound=_sound_at(sound, time_s, spec))
        return
    wanted = [time_s for time_s in times_s if time_s is not None]
    if not wanted:
        return
    windows = sounds_at(source, wanted, spec, sound)
    for window, (frame, shown_s) in zip(windows, _frames(source, wanted), strict=True):
        yield Scene(frame=frame, sound=window, time_s=shown_s)


def _sound_at(sound: SoundSource, at: float | None, spec: WindowSpec) -> SoundWindow:
    """The window around a place in a sound file; None is its middle."""
    assert sound.file is not None
    with sound.named():
        end_s = probe(sound.file, sound.track).sound_extent[1]
        if at is not None and at >= end_s:
            raise InputError(f"has no sound at {at:g} s: it ends at {end_s:.3f} s")
        return read_sound(sound.file, seconds=spec.seconds, rate=spec.rate, centre_s=at, track=sound.track)


def sounds_at(source: Path, times_s: Iterable[float], spec: WindowSpec, sound: SoundSource) -> Generator[SoundWindow]:
    """Windows around ascending times; a separate sound that ends before its video is followed by silence.

    Raises:
        InputError: no sound, or it cannot be decoded; names a sound file of its own.
    """
    clip_end_s = probe(source).picture_extent[1] if sound.file else 0.0
    with sound.named():
        yield from stream_sound(
            sound.of(source),
            times_s,
            seconds=spec.seconds,
            rate=spec.rate,
            clip_end_s=clip_end_s,
            track=sound.track,
        )


def _frames(source: Path, times_s: list[float]) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """The pictures shown at the times and when each appears: in one pass where they are close, else by seeking."""
    if len(times_s) < 2 or (times_s[1] - times_s[0] > _SEEK_S and probe(source).clock.seekable):
        yield from (read_frame(source, at=time_s) for time_s in times_s)
        return
    frame, first_s = read_frame(source, at=times_s[0])
    yield frame, first_s
    screens = stream_frames(source, start_s=times_s[0])
    screen, shown_s = next(screens), first_s
    held, missing = False, ""
    for time_s in times_s[1:]:
        while screen.end <= time_s + TIMESTAMP_TOLERANCE_S and (following := next(screens, None)) is not None:
            if following.damaged and held:
                missing = missing or f"has pictures before {float(following.start):.3f} s that cannot be decoded"
            screen, shown_s, held = following, float(following.start), False
        held = held or time_s >= float(screen.start + 1 / screen.rate) - TIMESTAMP_TOLERANCE_S
        yield screen.picture(), shown_s
    if missing:  # the picture before was taken in the place of some; its time says so
        raise InputError(missing)
