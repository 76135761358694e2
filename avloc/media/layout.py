"""Where the pictures and the sound of a file lie in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avloc.errors import InputError
from avloc.media.containers import Stream, is_known, picture_stream, sound_stream
from avloc.media.packets import Clock

SHORTFALL_S = 0.5
"""Pictures that end this much before their declared end are cut off."""
_MOST_NAMED = 8
"""Sound tracks that are named at most."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The timeline of one file. Times are seconds; zero is where the file starts, whatever time stamps it carries."""

    pictures: tuple[float, float] | None
    """Start and end of the pictures that are there; None for a file without."""
    no_pictures: str = ""
    """Why there are none."""
    promised_s: float = 0.0
    """Where the pictures, or sound without pictures, should end by the header and do not; else 0."""
    sound: tuple[float, float] | None
    """Start and end of the sound; None for a file without."""
    no_sound: str = ""
    """Why there is none."""
    end_s: float
    """Where the longest stream ends."""
    broken: str = ""
    """Why the packets end where they do, if not because the file is over."""
    clock: Clock = field(default_factory=Clock)
    tracks: tuple[str, ...] = ()
    """The sound tracks in words."""
    track: int = 0
    """Which one is used, counted from 1."""

    @property
    def middle_s(self) -> float:
        """The middle of the pictures that are there.

        Raises:
            InputError: there are none.
        """
        return sum(self.picture_extent) / 2

    @property
    def picture_extent(self) -> tuple[float, float]:
        """Start and end of the pictures in seconds.

        Raises:
            InputError: there are none.
        """
        if self.pictures is None:
            raise InputError(self.no_pictures or "is empty: its stream has no packets")
        return self.pictures

    @property
    def sound_extent(self) -> tuple[float, float]:
        """Start and end of the sound in seconds.

        Raises:
            InputError: there is none.
        """
        if self.sound is None:
            raise InputError(self.no_sound or "is empty: its stream has no packets")
        return self.sound

    @property
    def cut_off(self) -> str:
        """Says that pictures, or sound without pictures, are missing at the end; '' where none are known to be."""
        what, extent = ("pictures", self.pictures) if self.pictures else ("sound", self.sound)
        if extent is None:
            return ""
        end = extent[1]
        if self.promised_s > end + SHORTFALL_S:
            ends = "they end" if self.pictures else "it ends"
            return f"is cut off: it should have {what} until {self.promised_s:.3f} s, but {ends} at {end:.3f} s"
        return f"breaks off at {end:.3f} s ({self.broken})" if self.broken else ""

    @property
    def other_tracks(self) -> str:
        """Names the sound tracks that are not used; '' where there are none."""
        if len(self.tracks) < 2:
            return ""
        others = [f"{number} ({name})" for number, name in enumerate(self.tracks, 1) if number != self.track]
        more = ", ..." if len(others) > _MOST_NAMED else ""
        used = f"{self.track} ({self.tracks[self.track - 1]})"
        return f"has {len(self.tracks)} sound tracks: {used} is used, not {', '.join(others[:_MOST_NAMED])}{more}"


@dataclass(frozen=True)
class Streams:
    """The streams of a file that are used, or why there are none."""

    pictures: VideoStream | None
    no_pictures: str
    sound: AudioStream | None
    no_sound: str
    tracks: tuple[str, ...]
    track: int

    @classmethod
    def of(cls, container: InputContainer, track: int | None) -> Streams:
        """Those of an open file.

        Raises:
            InputError: there are neither pictures nor sound, or no such sound track.
        """
        pictures, no_pictures = _optional(lambda: picture_stream(container))
        sound, no_sound = _optional(lambda: sound_stream(container, track))
        if sound is None and (track is not None or pictures is None):
            raise InputError(no_sound if container.streams.audio else "has neither pictures nor sound")
        names = tuple(_track_name(stream) for stream in container.streams.audio)
        number = 0 if sound is None else container.streams.audio.index(sound) + 1
        return cls(pictures, no_pictures, sound, no_sound, names, number)

    def __iter__(self) -> Iterator[VideoStream | AudioStream]:
        return (stream for stream in (self.pictures, self.sound) if stream is not None)


def _optional(pick: Callable[[], Stream]) -> tuple[Stream | None, str]:
    """A stream, or the reason why there is none."""
    try:
        return pick(), ""
    except InputError as error:
        return None, str(error)


def _track_name(stream: AudioStream) -> str:
    if not is_known(stream):
        return "cannot be decoded"
    language = stream.language if stream.language not in (None, "und") else ""
    title = stream.metadata.get("title", "")
    parts = (language, title, stream.codec_context.name, stream.codec_context.layout.name)
    return ", ".join(part for part in parts if part)
