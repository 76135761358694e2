"""Start and end of the video and audio streams of a file, and which streams are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.media.containers import Stream, find_audio_stream, find_video_stream, is_decodable
from avloc.media.packets import Clock

SHORTFALL_S = 0.5
"""A stream that ends earlier than this before its declared end is truncated."""
_MAX_LISTED = 8
"""Most audio tracks listed in a message."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Stream extents of one file, in seconds from the start of the file."""

    pictures: tuple[float, float] | None
    """Start and end of the video; None if absent."""
    no_pictures: str = ""
    """Reason for the absence."""
    declared_end_s: float = 0.0
    """Declared end of truncated video, or of truncated audio in a file without video; else 0."""
    sound: tuple[float, float] | None
    """Start and end of the audio; None if absent."""
    no_sound: str = ""
    """Reason for the absence."""
    end_s: float
    """End of the longest stream."""
    read_error: str = ""
    """Error that ended reading before the end of the file."""
    clock: Clock = field(default_factory=Clock)
    tracks: tuple[str, ...] = ()
    """Descriptions of the audio tracks."""
    track: int = 0
    """Track used, counted from 1."""

    @property
    def middle_s(self) -> float:
        """Middle of the video; raises as `picture_extent`."""
        return sum(self.picture_extent) / 2

    @property
    def picture_extent(self) -> tuple[float, float]:
        """Start and end of the video; raises InputError if absent."""
        if self.pictures is None:
            raise InputError(self.no_pictures or "is empty: its stream has no packets")
        return self.pictures

    @property
    def sound_extent(self) -> tuple[float, float]:
        """Start and end of the audio; raises InputError if absent."""
        if self.sound is None:
            raise InputError(self.no_sound or "is empty: its stream has no packets")
        return self.sound

    @property
    def cut_off(self) -> str:
        """Message about truncated video, or audio in a file without video; '' if complete."""
        what, extent = ("pictures", self.pictures) if self.pictures else ("sound", self.sound)
        if extent is None:
            return ""
        end = extent[1]
        if self.declared_end_s > end + SHORTFALL_S:
            ends = "they end" if self.pictures else "it ends"
            return f"is cut off: it should have {what} until {self.declared_end_s:.3f} s, but {ends} at {end:.3f} s"
        return f"breaks off at {end:.3f} s ({self.read_error})" if self.read_error else ""

    @property
    def other_tracks(self) -> str:
        """Message about audio tracks that are not used; '' if there are none."""
        if len(self.tracks) < 2:
            return ""
        others = [f"{number} ({name})" for number, name in enumerate(self.tracks, 1) if number != self.track]
        more = ", ..." if len(others) > _MAX_LISTED else ""
        used = f"{self.track} ({self.tracks[self.track - 1]})"
        return f"has {len(self.tracks)} sound tracks: {used} is used, not {', '.join(others[:_MAX_LISTED])}{more}"


@dataclass(frozen=True)
class Streams:
    """The streams used, or why they are absent; see `Layout`."""

    pictures: VideoStream | None
    no_pictures: str
    sound: AudioStream | None
    no_sound: str
    tracks: tuple[str, ...]
    track: int

    @classmethod
    def of(cls, container: InputContainer, track: int | None) -> Streams:
        """Select the streams of an open file. Raises InputError without any, or without audio track `track`."""
        pictures, no_pictures = _optional(lambda: find_video_stream(container))
        sound, no_sound = _optional(lambda: find_audio_stream(container, track))
        if sound is None and (track is not None or pictures is None):
            raise InputError(no_sound if container.streams.audio else "has neither pictures nor sound")
        names = tuple(_track_name(stream) for stream in container.streams.audio)
        number = 0 if sound is None else container.streams.audio.index(sound) + 1
        return cls(pictures, no_pictures, sound, no_sound, names, number)

    def __iter__(self) -> Iterator[VideoStream | AudioStream]:
        return (stream for stream in (self.pictures, self.sound) if stream is not None)


def _optional(pick: Callable[[], Stream]) -> tuple[Stream | None, str]:
    """A stream, or None and the reason."""
    try:
        return pick(), ""
    except InputError as error:
        return None, str(error)


def _track_name(stream: AudioStream) -> str:
    if not is_decodable(stream):
        return "cannot be decoded"
    language = stream.language if stream.language not in (None, "und") else ""
    title = stream.metadata.get("title", "")
    parts = (language, title, stream.codec_context.name, stream.codec_context.layout.name)
    return ", ".join(part for part in parts if part)
