"""The two frozen teachers, each turning clips into hints: PANNs Cnn14 hears, DETR sees.

A teacher says who it is (`stamp`), takes from a clip what it needs (`read`, safe in threads) and answers for many
clips at once (`hints`). Inside, its network always runs on slabs of one fixed size, the last one filled up with zeros:
matrix products round differently for different batch sizes, and so the hint of a clip would otherwise depend on its
neighbours and on where a run was interrupted.

Shape letters: B batch, N samples, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.config import StoreSpec
from avloc.errors import InputError, Refused, UsageError
from avloc.media import decode_picture, read_sound
from avloc.networks.cnn14 import MIN_SAMPLES, RATE, WIDTH, embed, load_cnn14
from avloc.networks.detr import CELL, CONFIDENCE, SIDE, attention_maps, check_confidence, load_detr, stretched
from avloc.networks.exact import exactly
from avloc.store import Clip, HintStamp, Store, hint_folder
from avloc.store.hints import STAMP
from avloc.transforms import INT16_SCALE
from avloc.weights import CNN14, DETR, Located, Weight

Hint = NDArray[np.float32] | None
"""What a teacher says about one clip; None is "no hint"."""

SOUNDS = ("auto", "source", "store")


class Teacher(Protocol):
    """A frozen network that is run once over a store."""

    name: str

    def stamp(self) -> HintStamp:
        """Who answers, with which weights and settings: everything that changes a hint."""

    def read(self, clip: Clip) -> NDArray[Any]:
        """What the network needs of one clip; same shape for every clip of a store.

        Raises:
            InputError: the clip cannot be used; the reason without the clip's name.
        """

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """The hints of what `read` returned for some clips, in their order, whatever their number."""


@dataclass(frozen=True, kw_only=True)
class PannsSettings:
    """What changes the hints of PANNs."""

    normalise: bool = True
    """Embeddings of length 1, on the scale of the student's; False keeps them as Cnn14 gives them."""
    sound: str = "auto"
    """`source`: the file that the clip was made from, at full bandwidth; `store`: the sound in the store; `auto`
    decides, see `choose_sound`."""

    def __post_init__(self) -> None:
        if self.sound not in SOUNDS:
            raise UsageError(f"sound = {self.sound!r} is impossible; valid: {', '.join(SOUNDS)}")


@dataclass(frozen=True, kw_only=True)
class DetrSettings:
    """What changes the hints of DETR."""

    confidence: float = CONFIDENCE
    """A query counts if its best class is more probable than this ("no object" is not a class)."""
    side: int = SIDE
    """The frame is stretched to a square of this many pixels; a hint has side/32 cells each way."""

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.side < CELL or self.side % CELL:
            raise UsageError(f"side = {self.side!r} is impossible; valid: a multiple of {CELL}")


class PannsTeacher:
    """Cnn14's embedding of a clip's window of sound, [2048].

    Args:
        settings: `sound` must be settled: `source` or `store`.
        spec: of the store that is heard.
        weights: Cnn14's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.

    Raises:
        Refused: the clips of the store are too short for Cnn14.
    """

    name = "panns"
    weight: Weight = CNN14
    slab = 8

    def __init__(self, settings: PannsSettings, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if settings.sound == "auto":
            raise ValueError("sound is not settled; see choose_sound")
        self.settings = settings
        self.spec = spec
        self.weights = weights
        self.device = device
        self.samples = int(spec.seconds * RATE)
        if self.samples < MIN_SAMPLES:
            raise Refused(f"clips of {spec.seconds} s are too short for PANNs, which needs {MIN_SAMPLES / RATE} s")

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded when first needed."""
        return load_cnn14(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {**asdict(self.settings), "rate": RATE, "seconds": self.spec.seconds}
        return HintStamp(teacher=self.name, shape=(WIDTH,), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's window of sound, [seconds * 32000] in [-1, 1].

        Raises:
            InputError: the source file is to be heard, and is gone, changed or unreadable.
        """
        if self.settings.sound == "store":
            return self._from_store(clip)
        if not source_is_there(clip.sound_source, clip.source_bytes):
            raise InputError(f"its sound's source is gone or was changed: {clip.sound_source or 'none is recorded'}")
        centre_s = clip.window_s + self.spec.seconds / 2
        path = Path(clip.sound_source)
        return read_sound(path, seconds=self.spec.seconds, rate=RATE, centre_s=centre_s).waveform

    def _from_store(self, clip: Clip) -> NDArray[np.float32]:
        stored = (clip.sound / np.float32(INT16_SCALE)).clip(-1, 1)
        heard = soxr.resample(stored, self.spec.rate, RATE, quality="HQ")[: self.samples].clip(-1, 1)
        return np.pad(heard, (0, self.samples - len(heard)))

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Embeddings of length 1, or as they are if the settings say so; silence too has one."""
        return _in_slabs(batch, self.slab, self._embedded)

    def _embedded(self, slab: NDArray[Any]) -> list[Hint]:
        embedding = embed(self.model, torch.from_numpy(slab).to(self.device))
        if self.settings.normalise:
            embedding = F.normalize(embedding, dim=1)
        return list(embedding.cpu().numpy())


class DetrTeacher:
    """DETR's attention on the objects of a clip's frame, [side/32, side/32], summing to 1.

    Args:
        settings: how it is asked.
        weights: DETR's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.
    """

    name = "detr"
    weight: Weight = DETR
    slab = 4

    def __init__(self, settings: DetrSettings, weights: Located, device: torch.device) -> None:
        self.settings = settings
        self.weights = weights
        self.device = device

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded when first needed."""
        return load_detr(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        cells = self.settings.side // CELL
        settings = asdict(self.settings)
        return HintStamp(teacher=self.name, shape=(cells, cells), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The clip's frame, stretched: [side, side, 3].

        Raises:
            InputError: the picture cannot be decoded.
        """
        return stretched(decode_picture(clip.picture), self.settings.side)

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Attention maps; None where no query is confident."""
        return _in_slabs(batch, self.slab, self._attended)

    def _attended(self, slab: NDArray[Any]) -> list[Hint]:
        frames = torch.from_numpy(slab).to(self.device).permute(0, 3, 1, 2)
        maps = attention_maps(self.model, frames, confidence=self.settings.confidence)
        return [_numpy(attention) for attention in maps]


def _numpy(attention: Tensor | None) -> Hint:
    return None if attention is None else attention.cpu().numpy()


def _in_slabs(batch: Sequence[NDArray[Any]], size: int, ask: Callable[[NDArray[Any]], list[Hint]]) -> list[Hint]:
    hints: list[Hint] = []
    with exactly():
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            slab = np.zeros((size, *rows[0].shape), rows[0].dtype)
            slab[: len(rows)] = rows
            hints += ask(slab)[: len(rows)]
    return hints


def source_is_there(sound_source: str, source_bytes: int) -> bool:
    """Whether the file a clip's sound came from is still there, with the size it had."""
    try:
        return bool(sound_source) and Path(sound_source).stat().st_size == source_bytes
    except OSError:
        return False


def choose_sound(store: Store, asked: str) -> str:
    """Settle which sound PANNs hears, once for a whole store: `source` or `store`.

    Asked for `auto`, hints that are there already decide by their stamp, so that a later run goes on as the first one
    began. Else it is `source` if the source of every clip is still there, and `store` if one is not. The choice is
    never made clip by clip: hints of full and of cut bandwidth would lie in one folder, and which is which would
    depend on the day of the run. A source that goes away later makes its clip fail by name.
    """
    if asked != "auto":
        return asked
    stamp = hint_folder(store.folder, PannsTeacher.name) / STAMP
    if stamp.is_file():
        settled = json.loads(stamp.read_text(encoding="utf-8")).get("settings", {}).get("sound")
        if settled in SOUNDS:
            return str(settled)
    sources = zip(store.column("sound_source"), store.column("source_bytes"), strict=True)
    return "source" if all(source_is_there(str(path), int(size)) for path, size in sources) else "store"
