"""Writes a video with the event of each second as its caption and the attention as an overlay."""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.ave.timeline import Timeline
from avloc.ave.timeline_plot import attention_map
from avloc.localize.outputs import new_file
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.style import Style
from avloc.localize.verdict import Verdict
from avloc.localize.video import EncodedVideo, encode_video, warn_codec
from avloc.media.video_stream import TimedFrame, stream_frames
from avloc.progress import Listener, Progress, silent

_STYLE = Style(box=False, peak=False, contour=0.0)


def write_timeline_video(source: Path, out: Path, timeline: Timeline, listener: Listener = silent) -> EncodedVideo:
    """Write an MP4 of `source` with its timeline; all frames, time stamps and the audio are kept.

    The overlay is the attention of the frame's second, min-max normalised. Silent seconds, and frames after the last
    whole second, have no overlay.

    Raises:
        InputError: it cannot be decoded; nothing is written.
    """
    warn_codec(out, listener)
    seconds = len(timeline.probabilities)

    @lru_cache(maxsize=1)
    def heat(second: int, height: int, width: int) -> NDArray[np.float32]:
        return attention_map(timeline.attention[second], (height, width))

    def drawn(shown: TimedFrame) -> NDArray[np.uint8]:
        picture, second = shown.picture(), max(0, int(shown.start))
        listener(Progress(task="frames", done=min(second, seconds), total=seconds, detail=source.name))
        if second >= seconds:
            return draw_silent(picture, style=_STYLE, caption="")
        if timeline.silent[second]:
            return draw_silent(picture, style=_STYLE, caption=Verdict.SILENT.sentence)
        overlay = heat(second, picture.shape[0], picture.shape[1])
        return draw_overlay(picture, overlay, style=_STYLE, caption=_caption(timeline, second))

    with new_file(out) as part, closing(stream_frames(source)) as pictures:
        return encode_video(part, pictures, drawn, sound=source)


def _caption(timeline: Timeline, second: int) -> str:
    number = int(timeline.predicted[second])
    return f"{timeline.classes[number]} {100 * timeline.probabilities[second, number]:.0f} %"
