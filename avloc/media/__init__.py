"""Decode and encode pictures, audio and video with Pillow and FFmpeg, as NumPy arrays, without torch.

Times are seconds on the container's timeline, shared by picture and sound: 0 is the start of the file, whatever its
first time stamp. Unreadable files raise an `InputError` with the reason; the caller adds the file name.
"""

from avloc.media.audio import SILENCE_PEAK, SoundWindow, cut_window, read_sound
from avloc.media.containers import MediaSource
from avloc.media.layout import Layout
from avloc.media.pictures import (
    PICTURE_SUFFIXES,
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
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
from avloc.media.probing import probe
from avloc.media.video_frames import LATE_S, Moment, picture_seconds, read_frame, read_frames, read_moment
from avloc.media.video_stream import TimedFrame, stream_frames, stream_seconds, stream_sound
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
    "SoundWindow",
    "TimedFrame",
    "as_shown",
    "cut_window",
    "decode_mask",
    "decode_picture",
    "encode_jpeg",
    "encode_mask",
    "encode_png",
    "is_picture",
    "movie_codec",
    "picture_seconds",
    "probe",
    "read_frame",
    "read_frames",
    "read_moment",
    "read_sound",
    "shrink",
    "square",
    "stream_frames",
    "stream_seconds",
    "stream_sound",
]
