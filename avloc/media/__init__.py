"""Pictures, sounds and videos as arrays: everything Pillow and FFmpeg read, on one timeline, without torch.

Times are seconds on the container's own timeline: 0 is where the file starts, whatever time stamps it carries, and one
time means the same moment for the picture and for the sound. Whatever is wrong with a file comes out as an
`InputError` that gives the reason and leaves the name of the file to the caller.
"""

from avloc.media.audio import SILENCE_PEAK, SoundWindow, cut_window, read_sound
from avloc.media.containers import MediaSource
from avloc.media.layout import Layout
from avloc.media.pictures import (
    as_shown,
    decode_mask,
    decode_picture,
    encode_jpeg,
    encode_mask,
    encode_png,
    is_picture,
    shrink,
    square,
)
from avloc.media.probing import layout_of
from avloc.media.suffixes import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from avloc.media.video_frames import LATE_S, Moment, picture_seconds, read_frame, read_frames, read_moment
from avloc.media.video_stream import OnScreen, play, play_seconds, play_sound
from avloc.media.video_writer import MovieWriter, movie_codec

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
    "is_picture",
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
