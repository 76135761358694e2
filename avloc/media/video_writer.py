"""Write an MP4 from RGB frames, with the audio of another file copied or encoded as AAC.

`avloc.localize.video` computes and draws the frames of overlay videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avloc.media.colour_space import output_colours
from avloc.media.containers import convert_errors, find_audio_stream
from avloc.media.packets import open_stream, time_base_of, to_ticks
from avloc.media.probing import probe
from avloc.media.video_stream import TimedFrame

_CODEC, _FALLBACK_CODEC = "libx264", "mpeg4"
CODEC_OPTIONS = {
    # A coarser search than the preset's saves a third of the time and adds a tenth to the file size.
    "libx264": {"preset": "veryfast", "crf": "20", "subq": "1", "trellis": "0"},
    "mpeg4": {"qscale": "3"},
}
COPIED_SOUNDS = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
"""Codecs that the MP4 standard allows; other audio is encoded as AAC."""
_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})
_DEFAULT_AUDIO_RATE = 48_000
_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1")
"""Channel layouts by number of channels; some files lack theirs."""
_PREROLL_S = Fraction(1, 10)
"""Audio before the first frame, which players decode but do not play, for codecs with state."""
_MAX_SIDE = 4096
"""Limit of many H.264 players; larger frames are reduced to it, unless the source is larger."""
_YUV_MATRICES = frozenset({1, 2, 4, 5, 6, 7, 9})
_SMPTE_170M, _LIMITED = 6, 1


def video_codec() -> str:
    """FFmpeg's name of the video codec: H.264, or MPEG-4 part 2 where PyAV was built without x264."""
    return _CODEC if _CODEC in av.codecs_available else _FALLBACK_CODEC


class VideoWriter:
    """Context manager that writes an MP4. Times are in seconds of the source; `origin` becomes zero."""

    def __init__(
        self,
        path: Path,
        like: TimedFrame,
        size: tuple[int, int],
        *,
        sound: Path | None = None,
        track: int | None = None,
        whole_sound: bool = True,
        origin: Fraction = Fraction(0),
    ) -> None:
        """Open the file.

        Args:
            path: output file, with any suffix.
            like: a frame of the source, which sets time base, frame rate and colour tags.
            size: height and width of the frames; odd sizes grow by a pixel.
            sound: file with the audio to add.
            track: its audio track, counted from 1; None is the main one.
            whole_sound: keep audio that is longer than the video.
            origin: time of the source, and of the audio, at which the output starts.

        Raises:
            InputError: the audio cannot be read.
        """
        self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        matrix, self._primaries, self._transfer = output_colours(like.decoded.frame)
        self._matrix = matrix if matrix in _YUV_MATRICES else _SMPTE_170M
        self._size = size
        self._origin = origin
        self._time_base = like.decoded.time_base
        self._ticks: dict[int | None, int] = {}
        self._reformatter = VideoReformatter()
        self._video = self._add_video(like)
        self._whole_sound = whole_sound
        self._sound: Iterator[Packet[AudioStream]] = iter(()) if sound is None else self._add_sound(sound, track)
        self._packet = next(self._sound, None)

    @property
    def has_sound(self) -> bool:
        """Whether the output has an audio stream."""
        return bool(self._container.streams.audio)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._mux_pictures(self._video.encode(None))
                if self._whole_sound:
                    self._mux_sound(None)
        finally:
            self._container.close()

    def write(self, picture: NDArray[np.uint8], start: Fraction, end: Fraction) -> None:
        """Append a frame [H, W, 3] RGB, displayed from `start` to `end` in seconds of the source."""
        self._mux_sound(end)
        height, width = self._size
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture, format="rgb24"),
            width=self._video.width,
            height=self._video.height,
            format="yuv420p",
            dst_colorspace=self._matrix,
        )
        frame.time_base = self._time_base
        frame.pts = to_ticks(start - self._origin, self._time_base)
        self._ticks[frame.pts] = max(1, to_ticks(end - self._origin, self._time_base) - frame.pts)
        self._mux_pictures(self._video.encode(frame))

    def _add_video(self, like: TimedFrame) -> VideoStream:
        codec = video_codec()
        video = self._container.add_stream(codec, rate=like.decoded.rate, options=CODEC_OPTIONS[codec])
        assert isinstance(video, VideoStream)
        video.height, video.width = _encoded_size(self._size, max(like.decoded.frame.width, like.decoded.frame.height))
        video.pix_fmt = "yuv420p"
        video.time_base = self._time_base
        context = video.codec_context
        context.time_base = self._time_base
        context.thread_type = "FRAME"  # slice threading would make x264 wait for each frame
        context.colorspace, context.color_range = self._matrix, _LIMITED
        context.color_primaries, context.color_trc = self._primaries, self._transfer
        return video

    def _mux_pictures(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = self._ticks.pop(packet.pts)
            self._container.mux(packet)

    def _add_sound(self, source: Path, track: int | None) -> Iterator[Packet[AudioStream]]:
        packets = _sound_packets(source, self._origin, track)
        first = next(packets, None)
        if first is None:
            return iter(())
        assert isinstance(first.stream, AudioStream)
        every = chain([first], packets)
        if first.stream.codec.canonical_name in COPIED_SOUNDS:
            return _copied(every, self._container.add_stream_from_template(first.stream))
        rate = first.stream.rate if first.stream.rate in _AAC_RATES else _DEFAULT_AUDIO_RATE
        layout = _LAYOUTS[min(first.stream.channels, len(_LAYOUTS)) - 1]
        return _encoded(every, self._container.add_stream("aac", rate=rate, layout=layout))

    def _mux_sound(self, until: Fraction | None) -> None:
        """Write audio up to a time of the source; the muxer buffers packets until the other stream catches up."""
        while self._packet is not None and (until is None or _start(self._packet) < until - self._origin):
            self._container.mux(self._packet)
            self._packet = next(self._sound, None)


def _encoded_size(size: tuple[int, int], source_side: int) -> tuple[int, int]:
    """Even height and width, reduced in proportion to the limit of players."""
    scale = min(1.0, max(_MAX_SIDE, source_side) / max(size))
    height, width = (max(2, 2 * round(side * scale / 2)) if scale < 1 else side + side % 2 for side in size)
    return height, width


def _start(packet: Packet[AudioStream]) -> Fraction:
    assert packet.pts is not None
    assert packet.time_base is not None
    return packet.pts * packet.time_base


def _copied(packets: Iterable[Packet[AudioStream]], stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    for packet in packets:
        packet.stream = stream
        yield packet


def _encoded(packets: Iterable[Packet[AudioStream]], stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    for packet in packets:
        with convert_errors():
            frames = packet.decode()
        for frame in frames:
            yield from stream.encode(frame)
    yield from stream.encode(None)


def _sound_packets(source: Path, origin: Fraction, track: int | None) -> Iterator[Packet[AudioStream]]:
    """Audio packets with time stamps relative to `origin`; those before zero are preroll."""
    clock, select = probe(source, track).clock, partial(find_audio_stream, track=track)
    for entry in (float(origin - _PREROLL_S), None) if origin > _PREROLL_S else (None,):
        with open_stream(source, select, clock, entry) as (stream, packets):
            first = next(packets, None)
            if first is not None:
                yield from _rebased(chain([first], packets), origin, time_base_of(stream))
                return


def _rebased(
    packets: Iterable[Packet[AudioStream]], origin: Fraction, clock: Fraction
) -> Iterator[Packet[AudioStream]]:
    zero, preroll = to_ticks(origin, clock), round(_PREROLL_S / clock)
    for packet in packets:
        if packet.pts is None:  # flush packet
            continue
        packet.pts -= zero
        packet.dts = packet.pts if packet.dts is None else packet.dts - zero
        if zero == 0 or packet.pts + (packet.duration or 0) > -preroll:
            yield packet
