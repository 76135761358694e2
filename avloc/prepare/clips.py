"""Make one clip from one input. Runs in a worker process, so arguments and results can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avloc.annotations.boxes import Annotation
from avloc.errors import InputError
from avloc.files import read_input
from avloc.media.audio import SoundWindow, cut_window, read_sound
from avloc.media.pictures import decode_mask, decode_picture, encode_jpeg, encode_png, shrink
from avloc.media.probing import probe
from avloc.media.video_frames import Moment
from avloc.prepare.packed import PACKED_RATE, read_row
from avloc.prepare.sources import Skip, Source
from avloc.registry import VIDEO_READERS, StoreSpec, resolve
from avloc.store import Clip

_TRAIN_QUALITY = 90
_TEST_QUALITY = 95
_FULL_SCALE = 32_767


@dataclass(frozen=True, kw_only=True)
class Job:
    """An input with the settings to make a clip from it."""

    source: Source
    spec: StoreSpec
    at: float | None = None
    """Time of the frame in a video in seconds; None is the middle."""
    track: int | None = None
    """Audio track, counted from 1; None is the main one."""
    window: str = "middle"
    """Which seconds of a video (`registry.VIDEO_READERS`)."""
    annotation: Annotation | None = None
    """Boxes, label and mask of the clip, if any."""


@dataclass(frozen=True, kw_only=True)
class PreparedClip:
    """A clip, and remarks for the user about its source."""

    clip: Clip
    remarks: tuple[str, ...] = ()


def make_clip(job: Job) -> PreparedClip | Skip:
    """Make the clip, or return the reason for failure."""
    makers = {"video": _from_video, "pair": _from_pair, "packed": _from_packed}
    try:
        return makers[job.source.kind](job)
    except InputError as error:
        return Skip(id=job.source.id, input=job.source.input, reason=str(error))


def _from_video(job: Job) -> PreparedClip:
    path, spec = job.source.path, job.spec
    read = resolve(VIDEO_READERS[job.window])
    moment: Moment = read(path, seconds=spec.seconds, rate=spec.rate, at=job.at, track=job.track)
    clip = _clip(job, _encoded(moment.picture, spec), moment.picture, moment.sound, _origin(path))
    flags = ("still", *clip.flags) if moment.still else clip.flags
    return _with_remarks(job, replace(clip, flags=flags, time_s=moment.time_s), moment.sound, moment.other_tracks)


def _with_remarks(job: Job, clip: Clip, sound: SoundWindow, others: str) -> PreparedClip:
    remarks = []
    if sound.channel is not None:
        remarks.append(
            f"the channels of its sound all but cancel in their mean; channel {sound.channel} alone is stored"
        )
    if sound.lost_s:
        remarks.append(f"{sound.lost_s:.2f} s of its sound cannot be decoded and are stored as silence")
    if others and job.track is None:
        remarks.append(f"{others}; --track chooses")
    return PreparedClip(clip=clip, remarks=tuple(remarks))


def _from_pair(job: Job) -> PreparedClip:
    source, spec = job.source, job.spec
    assert source.sound is not None
    data = read_input(source.path)
    try:
        picture = decode_picture(data)
    except InputError as error:
        raise InputError(f"frame: {error}") from error
    try:
        sound = read_sound(source.sound, seconds=spec.seconds, rate=spec.rate, track=job.track)
    except InputError as error:
        raise InputError(f"sound {source.sound}: {error}") from error
    own_bytes = data if data.startswith(b"\xff\xd8") else encode_png(picture)
    stored = _encoded(picture, spec) if spec.shorter_side else own_bytes
    clip = _clip(job, stored, picture, sound, _origin(source.sound))
    return _with_remarks(job, clip, sound, probe(source.sound).other_tracks)


def _from_packed(job: Job) -> PreparedClip:
    picture, samples = read_row(job.source)
    sound = cut_window(samples, PACKED_RATE, seconds=job.spec.seconds, rate=job.spec.rate)
    stored = _encoded(picture, job.spec) if job.spec.shorter_side else encode_png(picture)
    return PreparedClip(clip=_clip(job, stored, picture, sound, ("", 0)))


def _origin(path: Path) -> tuple[str, int]:
    return str(path.resolve()), path.stat().st_size


def _encoded(picture: NDArray[np.uint8], spec: StoreSpec) -> bytes:
    if spec.shorter_side:
        return encode_jpeg(shrink(picture, spec.shorter_side), quality=_TRAIN_QUALITY)
    return encode_jpeg(picture, quality=_TEST_QUALITY, subsampling=0)


def _clip(job: Job, stored: bytes, picture: NDArray[np.uint8], sound: SoundWindow, origin: tuple[str, int]) -> Clip:
    known = job.annotation or Annotation(boxes=np.zeros((0, 4)))
    conditions = {"silent": sound.silent, "short": sound.short, "narrowband": sound.source_rate < job.spec.rate}
    return Clip(
        id=job.source.id,
        picture=stored,
        sound=np.rint(sound.waveform * _FULL_SCALE).astype(np.int16),
        frame_hw=(picture.shape[0], picture.shape[1]),
        boxes=known.boxes,
        mask=_mask(known),
        flags=tuple(name for name, on in conditions.items() if on),
        label=known.label,
        sound_source=origin[0],
        source_bytes=origin[1],
        source_rate=sound.source_rate,
        window_s=sound.start_s,
    )


def _mask(annotation: Annotation) -> bytes:
    """The mask, re-encoded with one bit per pixel."""
    if not annotation.mask:
        return b""
    try:
        return encode_png(decode_mask(annotation.mask))
    except InputError as error:
        raise InputError(f"mask {annotation.mask_name}: {error}") from error
