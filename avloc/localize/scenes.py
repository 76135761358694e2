"""Times of an input to localize at, and the frame and sound window decoded at each."""

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
from avloc.media.audio import SoundWindow, read_sound
from avloc.media.frame_decoder import TIMESTAMP_TOLERANCE_S
from avloc.media.layout import Layout
from avloc.media.pictures import decode_picture, is_picture
from avloc.media.probing import probe
from avloc.media.video_frames import read_frame
from avloc.media.video_stream import stream_frames, stream_sound

_LEAST_STEP_S = 0.01
_SEEK_S = 4.0
"""Times farther apart than this are reached by seeking; between closer ones every frame is decoded."""


class WindowSpec(Protocol):
    """Sound window of a model."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""

    @property
    def rate(self) -> int:
        """Sample rate in Hz; 0 is the file's own rate."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A frame and its sound window."""

    frame: NDArray[np.uint8]
    """[H, W, 3] RGB as shown."""
    sound: SoundWindow
    time_s: float = 0.0
    """Time stamp of the frame in its video, in seconds; 0 for a picture."""


@dataclass(frozen=True, kw_only=True)
class SoundSource:
    """Where the sound of an input comes from."""

    file: Path | None = None
    """A separate file; None is the input itself."""
    name: str = ""
    """Name of that file in errors, such as `--audio bark.wav`."""
    track: int | None = None
    """Sound track, counted from 1; None is the main one."""

    def path(self, source: Path) -> Path:
        """File that contains the sound of input `source`."""
        return self.file or source

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Prefix an InputError of a separate sound file with its name."""
        try:
            yield
        except InputError as error:
            if self.file is None:
                raise
            raise InputError(f"{self.name}: {error}") from error


OWN_SOUND = SoundSource()


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of a video to localize at, in seconds on its timeline; by default its middle.

    Raises:
        UsageError: an invalid value or combination.
    """

    at: float | None = None
    """A single time."""
    every: float | None = None
    """Interval between times, beginning at `start`."""
    start: float | None = None
    """First time; None is the start of the video."""
    end: float | None = None
    """Times are before this; None is the end of the video."""
    count: int = 1
    """Number of evenly spread times, without `at` and `every`."""

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
            raise UsageError("--at is a single time and cannot be combined with --every, --start or --end")

    @property
    def is_set(self) -> bool:
        """Whether any of `at`, `every`, `start` and `end` is set."""
        return (self.at, self.every, self.start, self.end) != (None,) * 4

    def within(self, layout: Layout) -> list[float]:
        """The times at which a video has frames, ascending.

        Raises:
            InputError: the video ends before `start`.
        """
        if self.at is not None:
            return [self.at]
        if self.count == 1 and not self.is_set:
            return [layout.middle_s]
        first, last = layout.picture_extent
        start = max(first, self.start or 0.0)
        end = last if self.end is None else min(self.end, last)
        if start >= end:
            raise InputError(f"has no picture after {start:g} s: the video ends at {last:.3f} s")
        if self.every is None:
            return [start + (part + 0.5) * (end - start) / self.count for part in range(self.count)]
        steps = max(1, math.ceil((end - start - TIMESTAMP_TOLERANCE_S) / self.every))
        return [start + index * self.every for index in range(steps)]


def scene_times(source: Path, times: Times, sound: SoundSource = OWN_SOUND) -> list[float | None]:
    """Times of an input, ascending, without decoding; for a picture the time in its sound, where None is the middle.

    Raises:
        InputError: a picture without sound or with times that need a video, or an unreadable file.
    """
    if not is_picture(source):
        return [*times.within(probe(source))]
    if sound.file is None:
        raise InputError("a picture has no sound; add one with --audio")
    if (times.every, times.start, times.end) != (None, None, None):
        raise InputError("is a picture; --every, --start and --end apply to videos only")
    return [times.at]


def check_complete(source: Path, times: Times, sound: SoundSource = OWN_SOUND) -> None:
    """Check, after the last time, that neither the input nor its separate sound file is truncated.

    Raises:
        InputError: a file breaks off before the end of the requested times; the message says where.
    """
    if times.at is not None:
        return
    if not is_picture(source):
        layout = probe(source)
        if layout.cut_off and (times.end is None or times.end > layout.picture_extent[1]):
            raise InputError(layout.cut_off)
    if sound.file is not None:
        with sound.named_errors():
            layout = probe(sound.file, sound.track)
            if layout.cut_off and (times.end is None or times.end > layout.sound_extent[1]):
                raise InputError(layout.cut_off)


def sound_warnings(window: SoundWindow) -> Iterator[str]:
    """Warnings about defects of a sound window."""
    if window.channel is not None:
        yield f"the channels of its sound all but cancel in their mean; channel {window.channel} alone is used"
    if window.lost_s:
        yield "some of its sound cannot be decoded, and is replaced by silence"


def read_scenes(
    source: Path, times_s: Sequence[float | None], spec: WindowSpec, sound: SoundSource = OWN_SOUND
) -> Iterator[Scene]:
    """Decode an input at (some of) its `scene_times`, one scene at a time.

    Args:
        source: a video, or a picture with a separate sound file.
        times_s: ascending.
        spec: sound window of the model.
        sound: where the sound comes from.

    Raises:
        InputError: no picture, no sound, a time past the end, or an undecodable file.
    """
    if is_picture(source):
        frame = decode_picture(read_input(source))
        for time_s in times_s:
            yield Scene(frame=frame, sound=_window_at(sound, time_s, spec))
        return
    wanted = [time_s for time_s in times_s if time_s is not None]
    if not wanted:
        return
    windows = sound_windows(source, wanted, spec, sound)
    for window, (frame, shown_s) in zip(windows, _frames(source, wanted), strict=True):
        yield Scene(frame=frame, sound=window, time_s=shown_s)


def _window_at(sound: SoundSource, at: float | None, spec: WindowSpec) -> SoundWindow:
    """The window centred at a time of a sound file; None is its middle."""
    assert sound.file is not None
    with sound.named_errors():
        end_s = probe(sound.file, sound.track).sound_extent[1]
        if at is not None and at >= end_s:
            raise InputError(f"has no sound at {at:g} s: it ends at {end_s:.3f} s")
        return read_sound(sound.file, seconds=spec.seconds, rate=spec.rate, centre_s=at, track=sound.track)


def sound_windows(
    source: Path, times_s: Iterable[float], spec: WindowSpec, sound: SoundSource
) -> Generator[SoundWindow]:
    """Windows centred at ascending times; a separate sound shorter than its video is padded with silence.

    Raises:
        InputError: no sound, or an undecodable one.
    """
    clip_end_s = probe(source).picture_extent[1] if sound.file else 0.0
    with sound.named_errors():
        yield from stream_sound(
            sound.path(source),
            times_s,
            seconds=spec.seconds,
            rate=spec.rate,
            clip_end_s=clip_end_s,
            track=sound.track,
        )


def _frames(source: Path, times_s: list[float]) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Frames [H, W, 3] on screen at the times, with their time stamps: one pass if close together, else seeking."""
    if len(times_s) < 2 or (times_s[1] - times_s[0] > _SEEK_S and probe(source).clock.seekable):
        yield from (read_frame(source, at=time_s) for time_s in times_s)
        return
    frame, first_s = read_frame(source, at=times_s[0])
    yield frame, first_s
    screens = stream_frames(source, start_s=times_s[0])
    screen, shown_s = next(screens), first_s
    is_late, missing = False, ""
    for time_s in times_s[1:]:
        while screen.end <= time_s + TIMESTAMP_TOLERANCE_S and (following := next(screens, None)) is not None:
            if following.decoded.damaged and is_late:
                missing = missing or f"has pictures before {float(following.start):.3f} s that cannot be decoded"
            screen, shown_s, is_late = following, float(following.start), False
        is_late = is_late or time_s >= float(screen.start + 1 / screen.decoded.rate) - TIMESTAMP_TOLERANCE_S
        yield screen.picture(), shown_s
    if missing:  # earlier frames were returned in place of some; their time stamps show it
        raise InputError(missing)
