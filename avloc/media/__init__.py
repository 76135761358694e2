"""Pictures, sounds and videos as arrays: everything Pillow and FFmpeg read, on one timeline, without torch.

Times are seconds on the container's own timeline: 0 is where the file starts, whatever time stamps it carries, and one
time means the same moment for the picture and for the sound. Whatever is wrong with a file comes out as an
`InputError` that gives the reason and leaves the name of the file to the caller.
"""

from avloc.media.containers import MediaSource
from avloc.media.layout import Layout
from avloc.media.measure import layout_of
from avloc.media.movies import MovieWriter, movie_codec
from avloc.media.pictures import (
    as_shown,
    decode_mask,
    decode_picture,
    encode_jpeg,
    encode_mask,
    encode_png,
    shrink,
    square,
)
from avloc.media.reels import OnScreen, play, play_seconds, play_sound
from avloc.media.sounds import SILENCE_PEAK, SoundWindow, cut_window, read_sound
from avloc.media.videos import LATE_S, Moment, picture_seconds, read_frame, read_frames, read_moment

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SOUND_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".au", ".ac3", ".amr"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"}
    | {".ogv", ".vob", ".f4v", ".asf", ".mxf"}
)
"""File name endings by which `prepare` and `localize` tell what a file is; lower case, with the dot."""

__all__ = [
    "LATE_S",
    "PICTURE_SUFFIXES",
    "SILENCE_PEAK",
    "SOUND_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Layout",
    "MediaSource",
    "Moment",
    "MovieWriter",
    "OnScreen",
    "SoundWindow",
    "as_shown",
    "cut_window",
    "decode_mask",
    "decode_picture",
    "encode_jpeg",
    "encode_mask",
    "encode_png",
    "layout_of",
    "movie_codec",
    "picture_seconds",
    "play",
    "play_seconds",
    "play_sound",
    "read_frame",
    "read_frames",
    "read_moment",
    "read_sound",
    "shrink",
    "square",
]
