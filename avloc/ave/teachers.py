"""Teachers of features per second: VGG19 on video frames, VGGish on audio.

Shape letters: B batch, C channels, H W pixels or cells, T seconds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.ave.event_table import EVENTS, EventTable
from avloc.ave.networks import CELLS_PER_SIDE, VISUAL_CHANNELS
from avloc.ave.video_seconds import FRAME_SIDE, FRAMES_PER_SECOND, frames_by_second
from avloc.errors import InputError, UsageError
from avloc.networks.builder import build_backbone, load_pretrained
from avloc.networks.vggish import WIDTH, VGGish, log_mel_patches
from avloc.registry import StoreSpec
from avloc.store import Clip
from avloc.teachers.base import Teacher, TeacherContext
from avloc.teachers.panns import source_is_there
from avloc.teachers.vggish import VggishTeacher
from avloc.transforms import MEL_RATE, normalise_frames
from avloc.weights import Located, imagenet_weights


class Vgg19Teacher(Teacher[nn.Module]):
    """Features of VGG19's fifth pooling layer, averaged over 16 frames of each second: [seconds, 7, 7, 512].

    A store holds one frame of a clip, so the frames are read from the video itself. How the released features of AVE
    were scaled is not published; these use torchvision's weights and ImageNet's mean and standard deviation.
    """

    name = "vgg19"
    batch_size = 1

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        self.seconds = int(spec.seconds)
        settings = {"frames": FRAMES_PER_SECOND, "side": FRAME_SIDE, "seconds": self.seconds}
        shape = (self.seconds, CELLS_PER_SIDE, CELLS_PER_SIDE, VISUAL_CHANNELS)
        super().__init__(weights, device, shape=shape, settings=settings)

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """It has no options."""
        return cls(context.store.spec, context.find(imagenet_weights(cls.name)), context.device)

    @staticmethod
    def load(path: Path) -> nn.Module:
        """VGG19 without its classifier, in eval mode."""
        network = build_backbone(Vgg19Teacher.name)
        load_pretrained(network, Vgg19Teacher.name, path)
        return network.eval()

    def read(self, clip: Clip) -> NDArray[np.uint8]:
        """The frames of the clip's window: [seconds * 16, 224, 224, 3].

        Raises:
            InputError: the video is missing, changed or unreadable.
        """
        if not source_is_there(clip.sound_source, clip.source_bytes):
            raise InputError(f"its video {clip.sound_source} is missing or has changed")
        return np.stack(list(frames_by_second(Path(clip.sound_source), clip.window_s, self.seconds)))

    def predict(self, batch: Tensor) -> Tensor:
        """[1, T, 7, 7, 512] of T * 16 frames [1, T * 16, H, W, 3].

        One second is computed at a time: its features do not depend on the others.
        """
        seconds = torch.split(batch[0].permute(0, 3, 1, 2), FRAMES_PER_SECOND)
        features_TCHW = torch.stack([self.model(normalise_frames(frames)).features.mean(0) for frames in seconds])
        return features_TCHW.permute(0, 2, 3, 1).contiguous().float().unsqueeze(0)


class VggishSecondsTeacher(VggishTeacher):
    """VGGish's embedding of each second of the store's window: [seconds, 128], not normalised.

    VGGish takes 0.96 s; the rest of each second is left out.
    """

    def __init__(self, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        super().__init__(spec, weights, device)
        settings = {**self.stamp.settings, "pooling": "none, a patch a second"}
        self.stamp = replace(self.stamp, shape=(int(spec.seconds), WIDTH), settings=settings)

    def predict(self, batch: Tensor) -> Tensor:
        """The embeddings of each waveform."""
        whole = batch[:, : int(self.spec.seconds) * self.rate]
        return embed_seconds(self.model, whole).float()


def embed_seconds(network: VGGish, sound_BN: Tensor) -> Tensor:
    """Embeddings [B, T, 128] of the first 0.96 s of each of T whole seconds of waveforms at 16 kHz."""
    seconds = sound_BN.reshape(-1, MEL_RATE)
    return network.embed(log_mel_patches(seconds, MEL_RATE)).reshape(len(sound_BN), -1, WIDTH)


def vgg19_teacher(context: TeacherContext) -> Vgg19Teacher:
    """VGG19 for a store of events. Raises UsageError for other stores."""
    folder = context.store.folder
    if not EventTable.is_in(folder):
        raise UsageError(f"--teacher vgg19 needs a store of events; {folder} has no {EVENTS}")
    return Vgg19Teacher.build(context)


def vggish_teacher(context: TeacherContext) -> VggishSecondsTeacher | None:
    """VGGish per second for a store of events; None for other stores, for which `avloc.teachers` has one."""
    return VggishSecondsTeacher.build(context) if EventTable.is_in(context.store.folder) else None
