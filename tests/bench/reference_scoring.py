"""Reimplementation of the published test scripts of AVC and EZ-VSL: one clip at a time.

What each piece reimplements:

* `TestClips`: the picture stretched to 224 x 224 (bicubic), the sound's spectrogram; one loader process,
  batches of one.
* `scored`: both networks in float32; the similarity of all pairs, of which the diagonal is used; maps resized to
  224 x 224 (bilinear, corners aligned), each min-max normalised; their fused map; pixels at or above the median of a
  map are positive.
* `ground_truth`, `ciou`: boxes drawn on 224 x 224 with truncated corners, the union of all of them; consensus
  intersection over union.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.bench.reference import SIDE, ReferenceNet, all_pairs, log_spectrogram, read_sound, test_transform

AV_SHARE, OBJECT_SHARE = 0.6, 0.4


class TestClips(Dataset):
    """Pairs of `frames/` and `audio/` with their boxes."""

    __test__ = False  # pytest: a test set, not a test

    def __init__(self, root: Path, boxes: dict[str, list[list[float]]]) -> None:
        self.root, self.boxes, self.names = root, boxes, sorted(boxes)
        self.transform = test_transform()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        name = self.names[index]
        frame = self.transform(Image.open(self.root / name).convert("RGB"))
        sound = self.root / "audio" / f"{Path(name).stem}.flac"
        return frame, log_spectrogram(*read_sound(sound)), name


def ground_truth(boxes: list[list[float]]) -> NDArray[np.float64]:
    """Union of the boxes as a mask [224, 224] of 0 and 1."""
    truth = np.zeros((SIDE, SIDE))
    for box in boxes:
        left, top, right, bottom = (int(SIDE * min(max(value, 0), 1)) for value in box)
        truth[top:bottom, left:right] = 1
    return truth


def min_max(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Min-max normalise a map to [0, 1]."""
    return (values - values.min()) / (values.max() - values.min())


def ciou(heat: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Consensus IoU of the pixels at or above the median of a map."""
    threshold = np.sort(heat.flatten())[heat.size // 2]
    inside = np.zeros(heat.shape)
    inside[heat >= threshold] = 1
    return float(np.sum(inside * truth) / (np.sum(truth) + np.sum(inside * (truth == 0))))


def similarity_maps(network: ReferenceNet, frames: Tensor, spectrograms: Tensor) -> Tensor:
    """[B, h, w]: similarity of each picture with its own sound, taken from the matrix of all pairs."""
    image, audio = network(frames, spectrograms)
    pairs = all_pairs(image, audio)
    return torch.stack([pairs[row, row] for row in range(len(pairs))])


def upsampled(cells: Tensor) -> NDArray[np.float32]:
    """Maps at 224 x 224."""
    grown = F.interpolate(cells[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    return grown[:, 0].numpy()


@torch.no_grad()
def scored(network: ReferenceNet, prior: nn.Module, clips: TestClips) -> Iterator[dict[str, float]]:
    """Scores (cIoU) of each clip for each kind of map."""
    for frames, spectrograms, (name,) in DataLoader(clips, batch_size=1, shuffle=False, num_workers=1):
        similarity = min_max(upsampled(similarity_maps(network, frames, spectrograms))[0])
        objects = min_max(upsampled(prior(frames).abs().mean(1))[0])
        maps = {"av": similarity, "object": objects, "fused": min_max(AV_SHARE * similarity + OBJECT_SHARE * objects)}
        truth = ground_truth(clips.boxes[name])
        yield {kind: ciou(heat, truth) for kind, heat in maps.items()}
