"""A video with the event of each second written on it, and lit where the sound said to look."""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avloc.localize.outputs import new_file
from avloc.localize.overlay import draw_overlay, draw_silent
from avloc.localize.style import Style
from avloc.localize.timeline import attention_map
from avloc.localize.verdict import Verdict
from avloc.localize.video import EncodedVideo, encode_video, warn_codec
from avloc.media import OnScreen, play
from avloc.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from avloc.localize.events import Timeline

_STYLE = Style(box=False, peak=False, contour=0.0)


def write_events_video(source: Path, out: Path, timeline: Timeline, listener: Listener = silent) -> EncodedVideo:
    """Write an MP4 of `source` with its timeline: its own frame rate, time stamps and sound, and all of its pictures.

    Attention is that of the second a picture is in, stretched to [0, 1]. A silent second, and what is left behind the
    last whole one, stand plain.

    Raises:
        InputError: it cannot be decoded; nothing is written.
    """
    warn_codec(out, listener)
    seconds = len(timeline.probabilities)

    @lru_cache(maxsize=1)
    def heat(second: int, height: int, width: int) -> NDArray[np.float32]:
        return attention_map(timeline.attention[second], (height, width))

    def drawn(shown: OnScreen) -> NDArray[np.uint8]:
        picture, second = shown.picture(), max(0, int(shown.start))
        listener(Progress(task="pictures drawn", done=min(second, seconds), total=seconds, detail=source.name))
        if second >= seconds:
            return draw_silent(picture, style=_STYLE, caption="")
        if timeline.silent[second]:
            return draw_silent(picture, style=_STYLE, caption=Verdict.SILENT.sentence)
        lit = heat(second, picture.shape[0], picture.shape[1])
        return draw_overlay(picture, lit, style=_STYLE, caption=_caption(timeline, second))

    with new_file(out) as part, closing(play(source)) as pictures:
        return encode_video(part, pictures, drawn, sound=source)


def _caption(timeline: Timeline, second: int) -> str:
    told = int(timeline.told[second])
    return f"{timeline.classes[told]} {100 * timeline.probabilities[second, told]:.0f} %"
