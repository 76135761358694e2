"""Convert decoded video frames to SDR RGB, with colour tags for encoding."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from avloc.media.pictures import on_white
from avloc.media.tonemap import BT709, HLG, PQ, to_sdr

_UNSPECIFIED = 2
_FULL_WHITE, _LIMITED_WHITE = 65_535, 255 << 8
"""White in swscale's 16-bit RGB, for full and limited range."""


def output_colours(frame: VideoFrame) -> tuple[int, int, int]:
    """FFmpeg's codes of matrix, primaries and transfer of the result of `to_rgb`: the file's, or BT.709 if HDR."""
    if _is_hdr(frame):
        return BT709, BT709, BT709
    return frame.colorspace, frame.color_primaries, frame.color_trc


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """SDR RGB [H, W, 3]: PQ and HLG are tone-mapped, transparency is composited on white."""
    if not any(component.is_alpha for component in frame.format.components):
        return _rgb(frame, reformatter)
    rgba = np.array(reformatter.reformat(frame, format="rgba").to_ndarray(), np.uint8)
    if _is_hdr(frame):
        rgba[..., :3] = _rgb(frame, reformatter)
    return np.asarray(on_white(Image.fromarray(rgba)))


def _rgb(frame: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    if not _is_hdr(frame):
        return np.asarray(reformatter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
    full = frame.format.is_rgb or frame.color_range == ColorRange.JPEG
    rgb = reformatter.reformat(
        frame,
        format="rgb48le",
        src_colorspace=Colorspace.BT2020 if frame.colorspace == _UNSPECIFIED else frame.colorspace,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return to_sdr(
        np.asarray(rgb.to_ndarray(), np.uint16),
        transfer=frame.color_trc,
        primaries=frame.color_primaries,
        white=_FULL_WHITE if full else _LIMITED_WHITE,
    )


def _is_hdr(frame: VideoFrame) -> bool:
    return frame.color_trc in (PQ, HLG)
