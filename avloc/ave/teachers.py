"""Teachers of features per second: VGG19 on video frames, VGGish on audio.

Shape letters: B batch, H W pixels, T seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.ave.event_table import EVENTS, EventTable
from avloc.errors import InputError, UsageError
from avloc.media.containers import MediaSource
from avloc.media.pictures import square
from avloc.media.video_frames import read_frames
from avloc.networks.backbones import build_backbone, load_pretrained
from avloc.networks.determinism import deterministic_inference
from avloc.networks.vggish import WIDTH
from avloc.registry import StoreSpec
from avloc.store import Clip, HintStamp, Store
from avloc.teachers.base import Hint
from avloc.teachers.panns import source_is_there
from avloc.teachers.vggish import VggishTeacher
from avloc.transforms import MEL_RATE, normalise_frames
from avloc.weights import Located, Weight, imagenet_weights

FRAMES = 16
"""Frames of a second whose features are averaged (Tian et al., 2018)."""
SIDE = 224
"""Side in pixels of the square that frames are stretched to."""
SHAPE = (7, 7, 512)
"""Rows, columns and channels of a second."""


class Vgg19Teacher:
    """Features of VGG19's fifth pooling layer, averaged over 16 frames of each second: [seconds, 7, 7, 512].

    A store holds one frame of a clip, so the frames are read from the video itself. How the released features of AVE
    were scaled is not published; these use torchvision's weights and ImageNet's mean and standard deviation.

    Args:
        spec: spec of the store.
        weights: VGG19's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.
    """

    name = "vgg19"

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        self.seconds, self.weights, self.device = int(spec.seconds), weights, device

    @staticmethod
    def weight() -> Weight:
        """IMAGENET1K_V1."""
        return imagenet_weights(Vgg19Teacher.name)

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded when first needed."""
        network = build_backbone(self.name)
        load_pretrained(network, self.name, self.weights.path)
        return network.eval().to(self.device)

    def stamp(self) -> HintStamp:
        """Teacher, weights and settings."""
        settings = {"frames": FRAMES, "side": SIDE, "seconds": self.seconds}
        return HintStamp(
            teacher=self.name, shape=(self.seconds, *SHAPE), weights=self.weights.hashes, settings=settings
        )

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frames of the clip's window: [seconds * 16, 224, 224, 3].

        Raises:
            InputError: the video is gone, changed or unreadable.
        """
        if not source_is_there(clip.sound_source, clip.source_bytes):
            raise InputError(f"its video {clip.sound_source} is gone or has changed")
        return np.stack(list(read_seconds(Path(clip.sound_source), clip.window_s, self.seconds)))

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """The features of each clip."""
        return [self.features(clip) for clip in batch]

    @torch.inference_mode()
    def features(self, frames_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[T, 7, 7, 512] of T * 16 frames. One second is computed at a time: no clip depends on its neighbours."""
        out = []
        with deterministic_inference():
            for second in np.split(frames_NHW3, len(frames_NHW3) // FRAMES):
                frames = torch.from_numpy(second).to(self.device).permute(0, 3, 1, 2)
                features = self.model(normalise_frames(frames)).features.mean(0)
                out.append(features.permute(1, 2, 0).cpu().numpy())
        return np.stack(out)


class VggishSecondsTeacher(VggishTeacher):
    """The embedding of each second of the store's window, [seconds, 128], not normalised.

    VGGish takes 0.96 s; the rest of each second is left out. Silence has an embedding too.
    """

    def stamp(self) -> HintStamp:
        """Teacher, weights and settings."""
        settings = {"rate": MEL_RATE, "seconds": self.spec.seconds, "pooling": "none, a patch a second"}
        shape = (int(self.spec.seconds), WIDTH)
        return HintStamp(teacher=self.name, shape=shape, weights=self.weights.hashes, settings=settings)

    @torch.inference_mode()
    def heard(self, sound_BN: Tensor) -> list[Hint]:
        """The embeddings of each waveform."""
        seconds = int(self.spec.seconds)
        return list(self.model.seconds(sound_BN[:, : seconds * MEL_RATE]).cpu().numpy())


def vgg19_teacher(store: Store, find: Callable[[Weight], Located], device: torch.device) -> Vgg19Teacher:
    """VGG19 for a store of events; `find` locates its weights.

    Raises:
        UsageError: the store has no events.
    """
    if not EventTable.is_in(store.folder):
        raise UsageError(f"--teacher vgg19 needs a store of events; {store.folder} has no {EVENTS}")
    return Vgg19Teacher(store.spec, find(Vgg19Teacher.weight()), device)


def vggish_teacher(
    store: Store, find: Callable[[Weight], Located], device: torch.device
) -> VggishSecondsTeacher | None:
    """VGGish per second for a store of events; None for other stores, which take `avloc.teachers.VggishTeacher`."""
    if not EventTable.is_in(store.folder):
        return None
    return VggishSecondsTeacher(store.spec, find(VggishSecondsTeacher.weight), device)


def read_seconds(source: MediaSource, start_s: float, seconds: int) -> Iterator[NDArray[np.uint8]]:
    """16 frames of each second [224, 224, 3], each from the middle of its sixteenth, stretched to a square.

    Raises:
        InputError: the video cannot be decoded.
    """
    times = [start_s + (number + 0.5) / FRAMES for number in range(seconds * FRAMES)]
    return (square(picture, SIDE) for picture in read_frames(source, times))
