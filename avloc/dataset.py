"""Clips of a store as batches of tensors, for training and for scoring.

Shape letters: B batch, N samples, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avloc.config import ModelConfig
from avloc.errors import InputError, Refused
from avloc.loader_processes import IN_ADVANCE, follow_parent, process_count
from avloc.media.pictures import decode_mask, decode_picture, shrink, square
from avloc.media.superpixels import segments
from avloc.methods import HintBatch
from avloc.networks.detr import stretched
from avloc.registry import METHOD_SPECS, StoreSpec
from avloc.store import Hints, Sample, Store
from avloc.transforms import crop_bounds


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch, loaded to the CPU."""

    ids: list[str]
    frames: Tensor
    """[B, 3, H, W] uint8 RGB. Training frames differ in size and are padded with zeros at the right and below."""
    sizes: Tensor
    """[B, 2] int64 height and width of each frame before padding; [B, 4] as in `avloc.transforms.crop_frames` if the
    frames are parts that hold the crops."""
    sound: Tensor
    """[B, N] int16."""
    rate: int
    """Sample rate of `sound` in Hz."""
    prior_frames: Tensor | None = None
    """[B, 3, h, w] uint8, input of the object prior, if one is used."""
    detr_frames: Tensor | None = None
    """The same for DETR, stretched to a square."""
    segments: Tensor | None = None
    """[B, 256, 256] uint8 regions of each whole frame (`avloc.media.superpixels`), if the method uses them."""
    hints: HintBatch
    boxes: list[NDArray[np.float64]]
    """Annotated boxes of each clip in fractions of the picture."""
    labels: list[str]
    """Label of each clip (`avloc.annotations.labels.parse_label`); "" for none."""
    masks: list[bytes]
    """Annotated PNG masks; b"" for none."""
    failures: list[tuple[str, str]]
    """Ids and reasons of clips of this batch that could not be decoded; the fields above leave them out."""
    failed_at: list[int]
    """Positions of these among all clips of the batch, ascending."""

    def mapped(self, change: Callable[[Tensor], Tensor], but: Container[str] = ()) -> Batch:
        """The batch with `change` applied to its tensors and those of `hints`, except for fields named in `but`."""

        def changed(part: object) -> dict[str, Any]:
            return {name: change(it) for name, it in vars(part).items() if isinstance(it, Tensor) and name not in but}

        return replace(self, **changed(self), hints=replace(self.hints, **changed(self.hints)))

    def pin_memory(self) -> Batch:
        """The batch in pinned memory, from which it is copied to a GPU while the host goes on (`DataLoader`)."""
        return self.mapped(Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True)
class _Item:
    clip: Sample
    frame: NDArray[np.uint8]
    drawn: list[list[float]]
    """Numbers drawn for the crops, a row for each; none for the whole frame."""
    sound: NDArray[np.int16]
    prior_frame: NDArray[np.uint8] | None = None
    detr_frame: NDArray[np.uint8] | None = None
    segments: NDArray[np.uint8] | None = None
    audio_hint: NDArray[np.float16] | None = None
    visual_hint: NDArray[np.float16] | None = None


@dataclass(frozen=True)
class _Failure:
    clip_id: str
    reason: str


def check_fit(spec: StoreSpec, config: ModelConfig) -> None:
    """Refuse a store with fewer seconds or a lower sample rate than the model's input; sound is never upsampled."""
    if spec.seconds < config.seconds or spec.rate < config.rate:
        reason = f"the store holds {spec.seconds:g} s at {spec.rate} Hz; the model needs "
        raise Refused(f"{reason}{config.seconds:g} s at {config.rate} Hz", hint=_prepare_hint(spec, config))


def _prepare_hint(spec: StoreSpec, config: ModelConfig) -> str:
    rate = f"--rate {max(spec.rate, config.rate)}"
    if spec.seconds >= config.seconds:
        return f"Prepare it again with {rate}."
    long_enough = [name for name, method in METHOD_SPECS.items() if method.store.seconds >= config.seconds]
    if not long_enough:
        return "No store is that long: train with a smaller model.seconds."
    return f"Prepare it again with --for {config.method if config.method in long_enough else long_enough[0]} {rate}."


def fit_sound(sound: NDArray[Any], rate: int, config: ModelConfig) -> tuple[NDArray[Any], int]:
    """Crop the central `config.seconds` of a stored sound and resample it to the model's rate.

    Returns:
        Samples of the same dtype, and their rate in Hz (the stored one if `config.rate` is 0).
    """
    keep = int(config.seconds * rate)
    start = (len(sound) - keep) // 2
    sound = sound[start : start + keep]
    if config.rate in (0, rate):
        return sound, rate
    import soxr

    return soxr.resample(sound, rate, config.rate)[: int(config.seconds * config.rate)], config.rate


_ENOUGH = 1.25
"""Frames larger than needed by no more than this factor are not shrunk: crops are sampled bilinearly anyway."""


def shrunk(rgb: NDArray[np.uint8], least: int) -> NDArray[np.uint8]:
    """Shrink a training frame to a shorter side of `least` pixels (bicubic, antialiased) if it is much larger.

    `avloc.transforms.crop_frames` does the rest of the resize.
    """
    return shrink(rgb, least) if min(rgb.shape[:2]) > _ENOUGH * least else rgb


PATIENCE_S = 1_800.0
"""Timeout of a batch in seconds: a loader process that cannot send its batch hangs without an error."""


@dataclass(eq=False)
class ClipSet(Dataset[_Item | _Failure]):
    """Some clips of a store, decoded for one model.

    Raises:
        Refused: the store does not fit the model.
    """

    store: Store
    ids: Sequence[str]
    config: ModelConfig
    _: KW_ONLY
    least_side: int = 0
    """For training, the frames' shorter side in pixels, or somewhat more; 0 stretches the frames to the network's
    square input."""
    scale: float = 1.0
    """Shorter side of a frame over the side of its crops (`AugmentConfig.scale`)."""
    prior_side: int = 0
    """Side of the square frames for the object prior in pixels; 0 for none."""
    detr_side: int = 0
    """The same for DETR."""
    sound_ids: Sequence[str] | None = None
    """Clips whose sounds are paired with the frames of `ids`, one each; by default their own."""
    audio_hints: Hints | None = None
    visual_hints: Hints | None = None

    def __post_init__(self) -> None:
        check_fit(self.store.spec, self.config)
        self.with_segments = bool(self.least_side) and METHOD_SPECS[self.config.method].segments

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | tuple[int, list[list[float]]]) -> _Item | _Failure:
        """The clip at a position. With numbers drawn for its crops, its batch gets only the part that they need."""
        place, drawn = index if isinstance(index, tuple) else (index, [])
        clip_id = self.ids[place]
        try:
            clip = self.store.sample(clip_id)
            sound_id = self.sound_ids[place] if self.sound_ids else clip_id
            paired = clip if sound_id == clip_id else self.store.sample(sound_id)
            rgb = decode_picture(clip.picture)
            if clip.mask:
                decode_mask(clip.mask)  # a damaged mask fails here, where the clip is known
            audio_hint = self.audio_hints.read(clip_id) if self.audio_hints else None
            visual_hint = self.visual_hints.read(clip_id) if self.visual_hints else None
        except (InputError, Refused) as error:
            return _Failure(clip_id, str(error))
        sound, _ = fit_sound(paired.sound, self.store.spec.rate, self.config)
        frame = shrunk(rgb, self.least_side) if self.least_side else square(rgb, self.config.frame)
        return _Item(
            clip=clip,
            frame=frame,
            drawn=drawn,
            sound=sound,
            prior_frame=self._for_prior(rgb, frame),
            detr_frame=stretched(rgb, self.detr_side) if self.detr_side else None,
            segments=segments(rgb, self.config.own["grid"]) if self.with_segments else None,
            audio_hint=audio_hint,
            visual_hint=visual_hint,
        )

    def _for_prior(self, rgb: NDArray[np.uint8], frame: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Input of the object prior; the model's own frame if both have the same side."""
        if self.prior_side == self.config.frame and not self.least_side:
            return frame
        return square(rgb, self.prior_side) if self.prior_side else None

    def collate(self, entries: Sequence[_Item | _Failure]) -> Batch:
        """Stack the decoded clips and list the failed ones."""
        items = [entry for entry in entries if isinstance(entry, _Item)]
        labels = [item.segments for item in items if item.segments is not None]
        frames, sizes = self._parts(items)
        return Batch(
            ids=[item.clip.id for item in items],
            frames=_padded(frames),
            sizes=sizes,
            sound=torch.from_numpy(np.stack([item.sound for item in items])) if items else torch.zeros(0, 0),
            rate=self.config.rate or self.store.spec.rate,
            prior_frames=_padded([item.prior_frame for item in items]) if self.prior_side else None,
            detr_frames=_padded([item.detr_frame for item in items]) if self.detr_side else None,
            segments=torch.from_numpy(np.stack(labels)) if labels else None,
            hints=self._hint_batch(items),
            boxes=[item.clip.boxes for item in items],
            labels=[item.clip.label for item in items],
            masks=[item.clip.mask for item in items],
            failures=[(entry.clip_id, entry.reason) for entry in entries if isinstance(entry, _Failure)],
            failed_at=[place for place, entry in enumerate(entries) if isinstance(entry, _Failure)],
        )

    def _parts(self, items: Sequence[_Item]) -> tuple[list[NDArray[np.uint8]], Tensor]:
        """`Batch.frames`, not yet padded, and `Batch.sizes`."""
        frames = [item.frame for item in items]
        sizes = torch.tensor([frame.shape[:2] for frame in frames], dtype=torch.int64).reshape(-1, 2)
        if not items or not items[0].drawn:
            return frames, sizes
        drawn = torch.tensor([item.drawn for item in items])
        bounds = crop_bounds(sizes, self.config.frame, self.scale, drawn)
        corners = zip(frames, bounds.tolist(), strict=True)
        parts = [frame[top:bottom, left:right] for frame, (top, left, bottom, right) in corners]
        return parts, torch.cat([sizes, bounds[:, :2]], 1)

    def bytes_per_clip(self, views: int = 1) -> int:
        """Size of a clip in a batch, estimated from some clips; two views are crops of opposite corners."""
        drawn = [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]][:views] if self.least_side else []
        some = self.collate([self[index, drawn] for index in range(0, len(self), len(self) // 8 or 1)])
        tensors = [value for part in (some, some.hints) for value in vars(part).values() if isinstance(value, Tensor)]
        return sum(tensor.nbytes for tensor in tensors) // max(len(some.ids), 1)

    def _hint_batch(self, items: Sequence[_Item]) -> HintBatch:
        audio = visual = present = None
        if self.audio_hints:
            audio = _stacked([item.audio_hint for item in items], self.audio_hints.stamp["shape"])
        if self.visual_hints:
            visual = _stacked([item.visual_hint for item in items], self.visual_hints.stamp["shape"])
            present = torch.tensor([item.visual_hint is not None for item in items])
        return HintBatch(audio=audio, visual=visual, visual_present=present)


def _stacked(hints: Sequence[NDArray[np.float16] | None], shape: Sequence[int]) -> Tensor:
    blank = np.zeros(shape, np.float16)
    return torch.from_numpy(np.stack([blank if hint is None else hint for hint in hints])).float()


def _padded(frames: Sequence[NDArray[np.uint8] | None]) -> Tensor:
    there = [frame for frame in frames if frame is not None]
    height, width = (max((frame.shape[side] for frame in there), default=0) for side in (0, 1))
    out = np.zeros((len(there), height, width, 3), np.uint8)  # channels last: whole rows are copied
    for row, frame in enumerate(there):
        out[row, : frame.shape[0], : frame.shape[1]] = frame
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def clip_loader(
    clips: ClipSet,
    batches: Iterable[list[Any]] | None = None,
    *,
    batch: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[_Item | _Failure]:
    """A loader of `Batch`: the stream of `batches`, or all clips once, in order, `batch` at a time.

    `workers` is as in `process_count`; their batches must fit into shared memory (`check_shared_memory`). `pin_memory`
    is for a CUDA device, see `Batch.pin_memory`.
    """
    processes = process_count(workers)
    how: dict[str, Any] = {"batch_size": batch} if batches is None else {"batch_sampler": batches}
    return DataLoader(
        clips,
        num_workers=processes,
        prefetch_factor=IN_ADVANCE if processes else None,
        pin_memory=pin_memory,
        collate_fn=clips.collate,
        worker_init_fn=follow_parent,
        timeout=PATIENCE_S if processes else 0,
        **how,
    )
