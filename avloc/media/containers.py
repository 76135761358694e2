"""Opening what FFmpeg reads, and choosing its streams."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.files import check_ordinary

Stream = TypeVar("Stream", AudioStream, VideoStream)

MediaSource = Path | BinaryIO
"""A file, or a seekable binary file object that is read from its beginning."""

# A playlist in disguise must not make FFmpeg fetch anything from elsewhere.
_OPTIONS = {"protocol_whitelist": "file"}

# Tags are often not UTF-8, and nothing here reads them. PyAV 19 takes them as they are and has no such argument.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}


@contextmanager
def opened(source: MediaSource) -> Iterator[InputContainer]:
    """Open `source` with FFmpeg; every error of FFmpeg or of the disk becomes an `InputError`, also inside the block.

    Raises:
        InputError: it cannot be read or decoded.
    """
    with reading(), _opened(source) as container:
        yield container


def _opened(source: MediaSource) -> InputContainer:
    target = _target(source)
    try:
        container: InputContainer = av.open(target, "r", options=_OPTIONS, **_TAGS)
    except InvalidDataError as error:
        raise InputError("cannot be decoded (its kind is not known, or it is damaged at its beginning)") from error
    except OSError as error:
        if error.errno == errno.EIO:  # FFmpeg's word for both
            reason = "it breaks off before its first picture or sound, or the disk fails"
            raise InputError(f"cannot be read: {reason}") from error
        raise
    return container


@contextmanager
def reading() -> Iterator[None]:
    """Every error of FFmpeg or of the disk within becomes an `InputError`."""
    try:
        yield
    except InvalidDataError as error:
        raise InputError(f"cannot be decoded ({reason_of(error)})") from error
    except (FFmpegError, OSError) as error:
        raise InputError(f"cannot be read ({reason_of(error)})") from error


def _target(source: MediaSource) -> str | BinaryIO:
    if isinstance(source, Path):
        check_ordinary(source)
        if source.stat().st_size == 0:
            raise InputError("is empty (0 bytes)")
        return f"file:{source}"  # the prefix keeps a colon in the path from being taken for a protocol
    source.seek(0)
    return source


def reason_of(error: FFmpegError | OSError) -> str:
    """The reason in FFmpeg's or the system's words."""
    return error.strerror or str(error) or type(error).__name__


def sound_stream(container: InputContainer, track: int | None = None) -> AudioStream:
    """A sound track, counted from 1; None is the one that FFmpeg takes for the main one, of those that it can decode.

    Raises:
        InputError: there is none, no such track, or it cannot be decoded.
    """
    tracks = container.streams.audio
    if not tracks:
        raise InputError("has no sound")
    if track is None:
        return _main([stream for stream in tracks if is_known(stream)], container.streams.best("audio"), "sound")
    if not 1 <= track <= len(tracks):
        raise InputError(f"has no sound track {track}; it has {len(tracks)}")
    return _main([stream for stream in tracks[track - 1 : track] if is_known(stream)], None, "sound")


def picture_stream(container: InputContainer) -> VideoStream:
    """The main video stream of those that can be decoded; a cover picture is none.

    Raises:
        InputError: there is none.
    """
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError("has no picture")
    return _main([stream for stream in moving if is_known(stream)], container.streams.best("video"), "picture")


def is_known(stream: AudioStream | VideoStream) -> bool:
    """Whether FFmpeg has a decoder for a stream."""
    return stream.codec_context is not None


def _main(streams: Sequence[Stream], best: object, what: str) -> Stream:
    if not streams:
        raise InputError(f"has a {what} that cannot be decoded (FFmpeg knows no decoder for it)")
    return next((stream for stream in streams if stream is best), streams[0])
