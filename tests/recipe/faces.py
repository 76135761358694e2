"""Faces in pictures, by the three networks of MTCNN.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks": a fully
convolutional network proposes 12 x 12 cells of an image pyramid, two more refine and filter crops of 24 x 24 and
48 x 48 pixels. The weights are files of the PyPI package facenet-pytorch (MIT): `pip download --no-deps
facenet-pytorch`, then `unzip -j facenet_pytorch-*.whl 'facenet_pytorch/data/*net.pt'`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from avloc.errors import WeightsError
from avloc.weights.torch_files import load_plain

SMALLEST = 1 / 24
"""Side of the smallest face that is proposed, as a share of the picture's shorter side."""
_CELL, _STRIDE = 12, 2
"""Receptive field and stride of the proposal network, in pixels of its input."""
_FACTOR = 0.709
"""From one level of the pyramid to the next: half of the area."""
_PROPOSED, _ACCEPTED = 0.6, 0.7
"""Scores above which boxes are kept: of the first network, and of the others."""
_CELL_OVERLAP, _OVERLAP = 0.5, 0.7
"""Most overlap of boxes that are both kept: of cells of one level, and of all others."""

Boxes = NDArray[np.float64]
"""Rows of x0, y0, x1, y1 in pixels of the picture: shape [N, 4]."""
Face = tuple[float, float, float, float, float]
"""x0, y0, x1, y1 in fractions of the picture, and the score."""


class Stage(nn.Module):
    """One network of the cascade: 3 x 3 or 2 x 2 convolutions, PReLU, max pooling, and at most one dense layer.

    Args:
        layers: for each convolution its channels, kernel and pooling window, 0 for no pooling.
        dense: input and output units of the dense layer; the heads are 1 x 1 convolutions without one.
        heads: output units of each head: face or not, corner offsets, and landmarks, which are not used here.
    """

    def __init__(
        self, layers: Iterable[tuple[int, int, int]], heads: tuple[int, ...], dense: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.pools: list[int] = []
        width = 3
        for number, (channels, kernel, pool) in enumerate(layers, 1):
            self.add_module(f"conv{number}", nn.Conv2d(width, channels, kernel))
            self.add_module(f"prelu{number}", nn.PReLU(channels))
            self.pools.append(pool)
            width = channels
        self.last = len(self.pools) + 1
        if dense:
            self.add_module(f"dense{self.last}", nn.Linear(*dense))
            self.add_module(f"prelu{self.last}", nn.PReLU(dense[1]))
        self.head = f"dense{self.last + 1}_" if dense else f"conv{self.last}_"
        for number, units in enumerate(heads, 1):
            layer = nn.Linear(dense[1], units) if dense else nn.Conv2d(width, units, 1)
            self.add_module(f"{self.head}{number}", layer)

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The probability of a face [N] or [N, h, w], and offsets of the corners in box sides [N, 4] or [N, 4, h, w].

        Args:
            images_N3HW: RGB between -1 and 1.
        """
        x = images_N3HW
        for number, pool in enumerate(self.pools, 1):
            x = self._layer(f"prelu{number}", self._layer(f"conv{number}", x))
            if pool:
                x = F.max_pool2d(x, pool, 2, ceil_mode=True)
        if self.head.startswith("dense"):
            x = x.permute(0, 3, 2, 1).flatten(1)  # the published dense layers read width, height, channels
            x = self._layer(f"prelu{self.last}", self._layer(f"dense{self.last}", x))
        return self._layer(f"{self.head}1", x).softmax(1)[:, 1], self._layer(f"{self.head}2", x)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)


class FaceNetworks(NamedTuple):
    """The cascade."""

    proposal: Stage
    refinement: Stage
    output: Stage


def build_networks() -> FaceNetworks:
    """P-Net, R-Net and O-Net with random weights; state dicts have the published keys and shapes."""
    return FaceNetworks(
        Stage([(10, 3, 2), (16, 3, 0), (32, 3, 0)], heads=(2, 4)),
        Stage([(28, 3, 3), (48, 3, 3), (64, 2, 0)], heads=(2, 4), dense=(576, 128)),
        Stage([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], heads=(2, 4, 10), dense=(1152, 256)),
    )


def load_faces(folder: Path) -> FaceNetworks:
    """The cascade with the weights of `pnet.pt`, `rnet.pt` and `onet.pt`.

    Raises:
        WeightsError: a file is unreadable or holds another network.
    """
    networks = build_networks()
    for name, network in zip(("pnet.pt", "rnet.pt", "onet.pt"), networks, strict=True):
        path = folder / name
        try:
            network.load_state_dict(load_plain(path))
        except RuntimeError as error:
            raise WeightsError(f"{path} holds another network: its layers have other names or shapes") from error
        network.eval()
    return networks


@torch.inference_mode()
def find_faces(picture: Image.Image, networks: FaceNetworks) -> list[Face]:
    """Faces in a picture, the highest score first.

    Small pictures need not be enlarged: the pyramid's first level is larger than they are.
    """
    image = picture.convert("RGB")
    boxes = _proposals(image, networks.proposal)
    boxes, _ = _refined(image, boxes, networks.refinement, 24)
    boxes, scores = _refined(image, boxes, networks.output, 48, over_smaller=True)
    kept = inside(boxes, image.size)
    fractions = np.clip(boxes[kept] / np.array([*image.size, *image.size]), 0, 1)
    return [(*box, score) for box, score in zip(fractions.tolist(), scores[kept].tolist(), strict=True)]


def levels(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of each level of a picture's pyramid: the first one has the smallest face in one cell."""
    scale = _CELL / (SMALLEST * min(size))
    found = []
    while round(min(size) * scale) >= _CELL:
        found.append((round(size[0] * scale), round(size[1] * scale)))
        scale *= _FACTOR
    return found


def cell_boxes(
    rows: NDArray[np.int64], columns: NDArray[np.int64], level: tuple[int, int], size: tuple[int, int]
) -> Boxes:
    """What cells of a level of the pyramid cover of the picture, whose width and height are `size`."""
    corners = np.stack([columns, rows], 1) * float(_STRIDE)
    scale = np.array(size) / level
    return np.concatenate([corners * scale, (corners + _CELL) * scale], 1)


def _proposals(image: Image.Image, network: Stage) -> Boxes:
    boxes, scores, offsets = [np.empty((0, 4))], [np.empty(0)], [np.empty((0, 4))]
    for level in levels(image.size):
        predicted, moves = network(_input([image.resize(level, Image.Resampling.BILINEAR)]))
        score_HW, moves_HW4 = predicted[0].numpy(), moves[0].permute(1, 2, 0).numpy()
        rows, columns = np.nonzero(score_HW > _PROPOSED)
        found = cell_boxes(rows, columns, level, image.size)
        kept = non_maximum(found, score_HW[rows, columns], _CELL_OVERLAP)
        boxes.append(found[kept])
        scores.append(score_HW[rows, columns][kept])
        offsets.append(moves_HW4[rows, columns][kept])
    every = np.concatenate(boxes)
    kept = non_maximum(every, np.concatenate(scores), _OVERLAP)
    return shifted(every[kept], np.concatenate(offsets)[kept])


def _refined(
    image: Image.Image, boxes: Boxes, network: Stage, side: int, *, over_smaller: bool = False
) -> tuple[Boxes, NDArray[np.floating]]:
    """Boxes that the network accepts, with its offsets, and their scores; `over_smaller` as in `non_maximum`."""
    boxes = squares(boxes[inside(boxes, image.size)])
    if not len(boxes):
        return boxes, np.empty(0)
    scores, offsets = (out.numpy() for out in network(_crops(image, boxes, side)))
    kept = scores > _ACCEPTED
    boxes, scores = shifted(boxes[kept], offsets[kept]), scores[kept]
    kept = non_maximum(boxes, scores, _OVERLAP, over_smaller=over_smaller)
    return boxes[kept], scores[kept]


def _crops(image: Image.Image, boxes: Boxes, side: int) -> Tensor:
    """What is in each box, black beyond the edge of the picture: shape [N, 3, side, side]."""
    border = max(image.size)
    canvas = ImageOps.expand(image, border)
    cut = np.clip(boxes + border, 0, [*canvas.size, *canvas.size])
    return _input([canvas.resize((side, side), Image.Resampling.BILINEAR, tuple(box)) for box in cut])


def _input(images: list[Image.Image]) -> Tensor:
    """Shape [N, 3, H, W], between -1 and 1."""
    pixels_NHW3 = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return (pixels_NHW3.permute(0, 3, 1, 2).float() - 127.5) / 128


def inside(boxes: Boxes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes have a pixel or more of the picture either way: a random or mistaken offset may leave none."""
    low, high = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], size)
    return np.asarray((high - low >= 1).all(1))


def squares(boxes: Boxes) -> Boxes:
    """Squares with the same centres, as large as the longer sides."""
    centres, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], 1)


def shifted(boxes: Boxes, offsets: NDArray[np.floating]) -> Boxes:
    """Boxes whose corners are moved by predicted offsets, which are in widths and heights of the box."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([sides, sides], 1)


def non_maximum(
    boxes: Boxes, scores: NDArray[np.floating], most: float, *, over_smaller: bool = False
) -> NDArray[np.int64]:
    """Indices of the boxes that non-maximum suppression keeps, the highest score first.

    Args:
        boxes: in any unit.
        scores: of the boxes [N].
        most: two boxes that overlap by more are not both kept.
        over_smaller: overlap is intersection over the smaller box, not over the union.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        corners = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.clip(corners[1] - corners[0], 0, None).prod(1)
        whole = np.minimum(areas[best], areas[left]) if over_smaller else areas[best] + areas[left] - shared
        left = left[shared <= most * whole]
    return np.array(kept, dtype=np.int64)


def write_faces(data: Path, paths: Iterable[str], networks: FaceNetworks, out: Path) -> Path:
    """Write `{path: [[x0, y0, x1, y1, score], ...]}` for pictures under a folder; a list is empty without a face."""
    found = {}
    for path in paths:
        with Image.open(data / path) as picture:
            found[path] = [[round(value, 4) for value in face] for face in find_faces(picture, networks)]
    out.write_text(json.dumps(found))
    return out
