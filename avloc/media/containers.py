"""Opening what FFmpeg reads, and where its streams lie in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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

# Tags are often not UTF-8, and nothing here reads them. PyAV 19 takes them as they are and has no such argument.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}


@contextmanager
def opened(source: MediaSource) -> Iterator[InputContainer]:
    """Open `source` with FFmpeg; every error of FFmpeg or of the disk becomes an `InputError`, also inside the block.

    Raises:
        InputError: it cannot be read or decoded.
    """
    with reading(), av.open(_target(source), "r", options=_OPTIONS, **_TAGS) as container:
        yield container


@contextmanager
def reading() -> Iterator[None]:
    """Every error of FFmpeg or of the disk within becomes an `InputError`."""
    try:
        yield
    except InvalidDataError as error:
        raise InputError(f"cannot be decoded ({_reason(error)})") from error
    except (FFmpegError, OSError) as error:
        raise InputError(f"cannot be read ({_reason(error)})") from error


def _target(source: MediaSource) -> str | BinaryIO:
    if isinstance(source, Path):
        check_ordinary(source)
        if source.stat().st_size == 0:
            raise InputError("is empty (0 bytes)")
        return f"file:{source}"  # the prefix keeps a colon in the path from being taken for a protocol
    source.seek(0)
    return source


def _reason(error: FFmpegError | OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def sound_stream(container: InputContainer) -> AudioStream:
    """The main audio stream.

    Raises:
        InputError: there is none.
    """
    best = container.streams.best("audio")
    if not isinstance(best, AudioStream):
        raise InputError("has no sound")
    return best


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


def origin_s(container: InputContainer) -> float:
    """Time stamp, in seconds, at which the container starts: zero of our timeline."""
    return (container.start_time or 0) / av.time_base


def end_s(container: InputContainer) -> float:
    """Where the longest stream ends by the container's own word; 0 where it does not say."""
    return (container.duration or 0) / av.time_base


def stream_extent_s(container: InputContainer, stream: AudioStream | VideoStream) -> tuple[float, float] | None:
    """Start and end of `stream` as it declares them itself; None where it does not."""
    if not stream.duration or stream.time_base is None:
        return None
    start = float((stream.start_time or 0) * stream.time_base) - origin_s(container)
    return start, start + float(stream.duration * stream.time_base)


def scanned_extent_s(container: InputContainer, stream: AudioStream | VideoStream) -> tuple[float, float]:
    """Start and end of `stream` by its packets: reads the rest of the file, decodes nothing.

    Raises:
        InputError: no packet has a time stamp.
    """
    container.seek(0, backward=True)
    start, end = float("inf"), float("-inf")
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base is not None:
            start = min(start, float(packet.pts * packet.time_base))
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if start > end:
        raise InputError("is empty: its stream has no packets")
    return start - origin_s(container), end - origin_s(container)
