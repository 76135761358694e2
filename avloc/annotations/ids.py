"""One clip, one id, however it is spelt."""

from __future__ import annotations

import re
from pathlib import PurePath

_SPAN = re.compile(r"([\w-]{11})_(\d+)_(\d+)", re.ASCII)
_SPAN_MS = 10_000
_VGGSOUND = re.compile(r"[\w-]{11}_\d{6}", re.ASCII)


def canonical_id(clip_id: str) -> str:
    """`clip_id` in the one spelling used in stores.

    VGGSound clips go by `ytid_ssssss` (start in seconds) in most lists and by `ytid_startms_endms` (always ten seconds)
    in others; the former is canonical. Every other id is its own spelling.
    """
    match = _SPAN.fullmatch(clip_id)
    if match and int(match[3]) - int(match[2]) == _SPAN_MS:
        return f"{match[1]}_{int(match[2]) // 1000:06d}"
    return clip_id


def is_vggsound_id(clip_id: str) -> bool:
    """Whether a canonical id is one of VGGSound: what follows its last `_` is a time and not a name."""
    return _VGGSOUND.fullmatch(clip_id) is not None


def media_id(path: PurePath, *, to_first_dot: bool = False) -> str:
    """Canonical id of a file: its stem, or its name up to the first dot, as the frame + sound folders have it."""
    return canonical_id(path.name.split(".", maxsplit=1)[0] if to_first_dot else path.stem)
