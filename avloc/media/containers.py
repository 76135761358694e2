"""Open media files with FFmpeg and select their streams."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.files import check_regular_file

Stream = TypeVar("Stream", AudioStream, VideoStream)

MediaSource = Path | BinaryIO | InputContainer
"""A path, a seekable binary file object, read from its start, or an open file that `can_rewind`."""

_REWINDABLE = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's demuxer that returns to the start exactly."""

_OPENS_OTHERS = {
    *("concat", "dash", "hls", "imf"),  # playlists
    *("avisynth", "lavfi", "vapoursynth"),  # scripts
    *("dvdvideo", "image2", "mlv", "vobsub"),  # split over files
    *("rtp", "rtsp", "sap", "sdp"),  # network
}
"""FFmpeg's demuxers that open further files or addresses."""

# FFmpeg compares the format with its whitelist before the demuxer reads anything. MP4 files can name other files too,
# which are opened only with `enable_drefs`, off by default. The protocols are a second barrier: no URLs.
_OPTIONS = {"format_whitelist": ",".join(sorted(av.formats_available - _OPENS_OTHERS)), "protocol_whitelist": "file"}

# Tags, which are not used here, are often not UTF-8; PyAV 19 accepts them and has no such argument.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}


@contextmanager
def open_container(source: MediaSource) -> Iterator[InputContainer]:
    """Open `source` with FFmpeg; FFmpeg and disk errors, also inside the block, become `InputError`."""
    with convert_errors(), nullcontext(source) if isinstance(source, InputContainer) else _open(source) as container:
        yield container


def can_rewind(container: InputContainer) -> bool:
    """Whether an open file can be read again from its start, with the same packets."""
    return container.format.name == _REWINDABLE


def _open(source: Path | BinaryIO) -> InputContainer:
    target: str | BinaryIO
    if isinstance(source, Path):
        check_regular_file(source)
        if source.stat().st_size == 0:
            raise InputError("is empty (0 bytes)")
        target = f"file:{source}"  # so that a colon in the path is not parsed as a protocol
    else:
        source.seek(0)
        target = source
    try:
        container: InputContainer = av.open(target, "r", options=_OPTIONS, **_TAGS)
    except InvalidDataError as error:
        raise InputError("cannot be decoded (unknown format, damaged, or cut off)") from error
    except ArgumentError as error:  # FFmpeg's error for a format that is not on the whitelist, and for some damage
        reason = "a playlist or another format that opens other files, or damaged"
        raise InputError(f"cannot be decoded ({reason}); give the files themselves") from error
    except OSError as error:
        if error.errno == errno.EIO:  # FFmpeg's error for both
            reason = "it ends before its first picture or sound, or the disk fails"
            raise InputError(f"cannot be read: {reason}") from error
        raise
    return container


@contextmanager
def convert_errors() -> Iterator[None]:
    """Convert FFmpeg and disk errors to `InputError`."""
    try:
        yield
    except InvalidDataError as error:
        raise InputError(f"cannot be decoded ({error_text(error)})") from error
    except (FFmpegError, OSError) as error:
        raise InputError(f"cannot be read ({error_text(error)})") from error


def error_text(error: FFmpegError | OSError) -> str:
    """Error message of FFmpeg or the system."""
    return error.strerror or str(error) or type(error).__name__


def find_audio_stream(container: InputContainer, track: int | None = None) -> AudioStream:
    """An audio track, counted from 1; None is FFmpeg's best decodable one."""
    tracks = container.streams.audio
    if not tracks:
        raise InputError("has no sound")
    if track is None:
        return _decodable(tracks, container.streams.best("audio"), "sound")
    if not 1 <= track <= len(tracks):
        raise InputError(f"has no sound track {track}; it has {len(tracks)}")
    return _decodable(tracks[track - 1 : track], None, "sound")


def find_video_stream(container: InputContainer) -> VideoStream:
    """FFmpeg's best decodable video stream; cover pictures do not count."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError("has no picture")
    return _decodable(moving, container.streams.best("video"), "picture")


def is_decodable(stream: AudioStream | VideoStream) -> bool:
    """Whether FFmpeg has a decoder for the stream."""
    return stream.codec_context is not None


def _decodable(streams: Sequence[Stream], best: object, what: str) -> Stream:
    """`best` if FFmpeg can decode it, else the first of `streams` that it can decode."""
    usable = [stream for stream in streams if is_decodable(stream)]
    if not usable:
        raise InputError(f"has a {what} that cannot be decoded (FFmpeg has no decoder for it)")
    return next((stream for stream in usable if stream is best), usable[0])
