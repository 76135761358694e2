"""Opening what FFmpeg reads, and choosing its streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.files import check_ordinary

MediaSource = Path | BinaryIO
"""A file, or a seekable binary file object that is read from its beginning."""

# A playlist in disguise must not make FFmpeg fetch anything from elsewhere.
_OPTIONS = {"protocol_whitelist": "file"}


@contextmanager
def opened(source: MediaSource) -> Iterator[InputContainer]:
    """Open `source` with FFmpeg; every error of FFmpeg or of the disk becomes an `InputError`, also inside the block.

    Raises:
        InputError: it cannot be read or decoded.
    """
    with reading(), av.open(_target(source), "r", options=_OPTIONS, metadata_errors="replace") as container:
        yield container


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
    """A sound track, counted from 1; None is the one that FFmpeg takes for the main one.

    Raises:
        InputError: there is none, or no such track.
    """
    tracks = container.streams.audio
    best = container.streams.best("audio")
    if not isinstance(best, AudioStream):
        raise InputError("has no sound")
    if track is None:
        return best
    if not 1 <= track <= len(tracks):
        raise InputError(f"has no sound track {track}; it has {len(tracks)}")
    return tracks[track - 1]


def picture_stream(container: InputContainer) -> VideoStream:
    """The main video stream; a cover picture is none.

    Raises:
        InputError: there is none.
    """
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if not moving:
        raise InputError("has no picture")
    return next((s for s in moving if s is best), moving[0])
