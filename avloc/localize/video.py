"""Write overlay videos, streamed: memory does not grow with their length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, count, tee
from math import ceil, inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError
from avloc.localize.heat_interpolation import PREFETCHED_MAPS, HeatInterpolator, Mapper
from avloc.localize.outputs import new_file
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.result import peak_and_box, peak_of
from avloc.localize.scenes import OWN_SOUND, Scene, SoundSource, Times, sound_windows
from avloc.localize.style import DEFAULT_STYLE, Style
from avloc.localize.verdict import Verdict
from avloc.media.video_stream import TimedFrame, stream_frames
from avloc.media.video_writer import VideoWriter, video_codec
from avloc.progress import Listener, Notice, Progress, silent

_ON_TIME_S = 1e-4
"""Tolerance when the frame on screen at a time is looked up."""
_BUFFERED_BYTES = 128 << 20
"""Limit on decoded frames that wait in memory for the next map."""
_WRITES_AHEAD = 2
"""Drawn frames beyond the one that is encoded, in a thread of its own."""
_BYTES_PER_PIXEL = 1.5  # of a decoded frame: most have 4:2:0 chroma subsampling


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """Summary of a written video."""

    frames: int
    duration_s: float
    """From the first frame to the end of the last one."""
    has_sound: bool
    maps: int = 0
    """Number of maps computed for an overlay video."""
    missing: str = ""
    """Why an overlay video is incomplete, if its source is damaged."""


def write_video(
    source: Path,
    out: Path,
    mapper: Mapper,
    *,
    every: float = 0.5,
    start: float | None = None,
    end: float | None = None,
    sound: SoundSource = OWN_SOUND,
    style: Style = DEFAULT_STYLE,
    caption: str = "",
    listener: Listener = silent,
) -> EncodedVideo:
    """Write an MP4 of `source` with heat maps overlaid, keeping its frame rate, time stamps and sound.

    A map is computed every `every` seconds from the frame on screen and the sound window centred there, normalised to
    [0, 1], and linearly interpolated in between. Silence has no heat: frames nearer to silence than to sound are drawn
    plain with a caption. The sound is copied if MP4 supports its codec, otherwise encoded as AAC.

    The output, replaced atomically, begins at `start` and ends at `end`, in seconds. A separate sound file is cut at
    the end of the frames. `caption` is drawn on every frame with heat.

    Raises:
        UsageError: an invalid `every`, `start` or `end`.
        InputError: no picture, no sound, or the first frame cannot be decoded; nothing is written.
    """
    Times(every=every, start=start, end=end)  # raises UsageError
    warn_codec(out, listener)
    with ExitStack() as stack:
        stack.enter_context(_single_torch_thread())
        part = stack.enter_context(new_file(out))
        missing: list[str] = []
        decode = partial(stream_frames, source, start_s=start, stop_s=end)
        frames, map_frames = _two_streams(lambda: _until_damage(decode(), missing), every, stack)
        first = next(frames)
        total = ceil((min(first.clip_end_s, end or inf) - (start or 0)) / every) if first.clip_end_s else None
        scenes = _map_scenes(map_frames, source, mapper, every, sound, listener)

        def on_map(done: int) -> None:
            listener(Progress(task=f"maps of {source.name}", done=done, total=total))

        heat = stack.enter_context(closing(HeatInterpolator(scenes, mapper, on_map)))
        encoded = encode_video(
            part,
            chain([first], frames),
            partial(_draw, heat=heat, style=style, caption=caption),
            sound=sound.path(source),
            track=sound.track,
            whole_sound=end is None and sound.file is None,
            origin=Fraction(start or 0),
        )
        return replace(encoded, maps=heat.count, missing="".join(missing[:1]))


def encode_video(
    part: Path,
    frames: Iterator[TimedFrame],
    draw: Callable[[TimedFrame], NDArray[np.uint8]],
    *,
    sound: Path,
    track: int | None = None,
    whole_sound: bool = True,
    origin: Fraction = Fraction(0),
) -> EncodedVideo:
    """Draw frames, at least one, and encode them to the MP4 `part` with their time stamps.

    `draw` returns pictures [H, W, 3] of one size, each a new array; another thread encodes them meanwhile. The sound is
    copied from the track (counted from 1; None is the main one) of the file `sound`, or re-encoded if MP4 does not
    support its codec, to its end if `whole_sound`, otherwise to that of the last frame. `origin` is the time that
    becomes 0 in the output.

    Raises:
        InputError: a frame or the sound cannot be decoded.
    """
    first = last = next(frames)
    picture, count = draw(first), 1
    size = (picture.shape[0], picture.shape[1])
    with (
        VideoWriter(part, first, size, sound=sound, track=track, whole_sound=whole_sound, origin=origin) as writer,
        ExitStack() as stack,
    ):
        encoder = ThreadPoolExecutor(1, thread_name_prefix="avloc-encoder")
        stack.callback(encoder.shutdown, cancel_futures=True)  # after an error nothing more is written
        writes = deque([encoder.submit(writer.write, picture, first.start, first.end)])
        for last in frames:
            writes.append(encoder.submit(writer.write, draw(last), last.start, last.end))
            count += 1
            if len(writes) > _WRITES_AHEAD:
                writes.popleft().result()
        for write in writes:
            write.result()
        return EncodedVideo(frames=count, duration_s=float(last.end - first.start), has_sound=writer.has_sound)


def warn_codec(out: Path, listener: Listener) -> None:
    """Send a notice if the video will not be H.264."""
    if video_codec() != "libx264":
        listener(Notice(f"{out}: PyAV was built without H.264; the video is MPEG-4 part 2"))


@contextmanager
def _single_torch_thread() -> Iterator[None]:
    """Leave the other cores to decoding, drawing and encoding."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _two_streams(
    decode: Callable[[], Generator[TimedFrame]], every: float, stack: ExitStack
) -> tuple[Iterator[TimedFrame], Iterator[TimedFrame]]:
    """The frames to draw, and the same frames for the maps, which are read some `every` seconds ahead.

    Decoded once if the frames between the two fit in memory, otherwise twice.
    """
    frames = stack.enter_context(closing(decode()))
    first = next(frames)
    shown = first.decoded
    buffered = (1 + PREFETCHED_MAPS) * every * shown.rate * shown.frame.width * shown.frame.height * _BYTES_PER_PIXEL
    if buffered <= _BUFFERED_BYTES:
        to_draw, to_map = tee(chain([first], frames))
        return to_draw, to_map
    return chain([first], frames), stack.enter_context(closing(decode()))


def _until_damage(frames: Generator[TimedFrame], missing: list[str]) -> Generator[TimedFrame]:
    """The frames up to a decoding error, which is appended to `missing`, as are skipped damaged frames.

    Raises:
        InputError: the first frame cannot be decoded.
    """
    with closing(frames):
        shown = next(frames)
        while True:
            if shown.decoded.damaged:
                missing.append(f"has pictures before {float(shown.start):.3f} s that cannot be decoded")
            yield shown
            try:
                following = next(frames, None)
            except InputError as error:
                missing.append(f"breaks off at {float(shown.end):.3f} s: {error}")
                return
            if following is None:
                return
            shown = following


def _map_scenes(
    frames: Iterator[TimedFrame], source: Path, mapper: Mapper, every: float, sound: SoundSource, listener: Listener
) -> Generator[Scene]:
    """Frame and sound window every `every` seconds, as long as there are frames; `time_s` is the time of the map."""
    first = next(frames)
    first_s, step = float(first.start), 0
    windows = sound_windows(source, (first_s + number * every for number in count()), mapper, sound)
    for shown in chain([first], frames):
        while (time_s := first_s + step * every) < float(shown.end) - _ON_TIME_S:
            window = next(windows)
            if not step and window.source_rate < window.rate:
                rates = f"sampled at {window.source_rate} Hz; the model takes {window.rate} Hz"
                listener(Notice(f"{source.name}: its sound is {rates}"))
            yield Scene(time_s=time_s, frame=shown.picture(), sound=window)
            step += 1


def _draw(shown: TimedFrame, heat: HeatInterpolator, style: Style, caption: str) -> NDArray[np.uint8]:
    picture = shown.picture()
    levels, opacity = heat.at(float(shown.start))
    if levels is None:
        return draw_silent(picture, style=style, caption=Verdict.SILENT.sentence)
    peak, box = None, None
    if levels.any():  # a map of zeros has no peak
        peak, box = peak_and_box(levels) if style.box else (peak_of(levels), None)
    levels = levels * np.float32(opacity)
    return draw_overlay(picture, levels, style=style, box_xyxy=box, peak_xy=peak, caption=caption)
