"""VGG19 sees: the last feature map of every second of a clip's video.

Shape letters: B batch, H W pixels, T seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avloc.errors import InputError
from avloc.media import MediaSource, read_frames, square
from avloc.networks.backbones import build_backbone, load_pretrained
from avloc.networks.determinism import deterministic_inference
from avloc.registry import StoreSpec
from avloc.store import Clip, HintStamp
from avloc.teachers.base import Hint
from avloc.teachers.panns import source_is_there
from avloc.transforms import normalise_frames
from avloc.weights import Located, Weight, imagenet_weights

FRAMES = 16
"""Pictures of a second whose features are averaged (Tian et al., 2018)."""
SIDE = 224
"""Side of the square that they are stretched to, in pixels."""
SHAPE = (7, 7, 512)
"""Rows, columns and channels of a second."""


class Vgg19Teacher:
    """The features after the fifth pooling, averaged over 16 pictures of each second: [seconds, 7, 7, 512].

    The store holds one picture of a clip, so that the video has to be where it was. How the released features of AVE
    were scaled is not published; these are of torchvision's weights and ImageNet's mean and deviation.

    Args:
        spec: of the store whose clips are seen.
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
        """Who answers, and how."""
        settings = {"frames": FRAMES, "side": SIDE, "seconds": self.seconds}
        return HintStamp(
            teacher=self.name, shape=(self.seconds, *SHAPE), weights=self.weights.hashes, settings=settings
        )

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The pictures of the clip's window: [seconds * 16, 224, 224, 3].

        Raises:
            InputError: the video is gone, changed or unreadable.
        """
        if not source_is_there(clip.sound_source, clip.source_bytes):
            raise InputError(f"its video {clip.sound_source} is gone or has changed")
        return np.stack(list(pictures(Path(clip.sound_source), clip.window_s, self.seconds)))

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """What is seen in each second."""
        return [self.seen(clip) for clip in batch]

    @torch.inference_mode()
    def seen(self, frames_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[T, 7, 7, 512] of T * 16 pictures. One second runs at a time: no clip depends on its neighbours."""
        out = []
        with deterministic_inference():
            for second in np.split(frames_NHW3, len(frames_NHW3) // FRAMES):
                frames = torch.from_numpy(second).to(self.device).permute(0, 3, 1, 2)
                features = self.model(normalise_frames(frames)).features.mean(0)
                out.append(features.permute(1, 2, 0).cpu().numpy())
        return np.stack(out)


def pictures(source: MediaSource, start_s: float, seconds: int) -> Iterator[NDArray[np.uint8]]:
    """16 pictures of each second [224, 224, 3], each from the middle of its sixteenth, stretched to a square.

    Raises:
        InputError: the video cannot be decoded.
    """
    times = [start_s + (number + 0.5) / FRAMES for number in range(seconds * FRAMES)]
    return (square(picture, SIDE) for picture in read_frames(source, times))
