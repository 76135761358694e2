"""Scores of heat maps against annotations, for `avloc eval` and validation during training.

Clips are scored in blocks on a device. Shape letters: B clips, K masks of each, H W pixels, P = H x W.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.engine.fusion import HeatMaps
from avloc.engine.inference import ClipCells
from avloc.heatmap import area_ranks, median_rank, order_statistics, peaks, threshold_masks
from avloc.media.pictures import decode_mask
from avloc.metrics import ClipScore, ground_truth, mask_truth
from avloc.protocols import Protocol


class Truths:
    """Ground truths of B clips, for comparison with many masks.

    Args:
        maps_BP: values 0, 0.5 or 1. Pixels of a mask count against its score only where they are 0.
    """

    def __init__(self, maps_BP: Tensor) -> None:
        self.maps, self.size = maps_BP, maps_BP.shape[1]
        self._gain_and_loss = torch.stack([maps_BP, maps_BP], 1)
        torch.eq(maps_BP, 0, out=self._gain_and_loss[:, 1])
        total, outside = _numbers(self._gain_and_loss.sum(2)).T
        self.total: NDArray[np.float64] = total
        """[B] sum of each map."""
        self.pixels: NDArray[np.int64] = self.size - outside.astype(np.int64)
        """[B] pixels where each map is not 0."""

    def ciou(self, masks_BKP: Tensor, empty: float = 0.0) -> NDArray[np.float64]:
        """[B, K] consensus intersection over union of masks with values 0 and 1, float32; `empty` for 0 / 0.

        sum(mask * truth) / (sum(truth) + pixels of the mask where the truth is 0)
        """
        # Sums of multiples of a half are exact in single precision, in any order.
        hit, beside = np.moveaxis(_numbers(masks_BKP @ self._gain_and_loss.mT), 2, 0)
        return _quotient(hit, self.total[:, None] + beside, empty)

    def scores(self, masks_B2P: Tensor, peaks_B: Tensor, *, are_masks: bool = False) -> list[ClipScore]:
        """Scores of a mask of each clip, of one as large as the truth, and of the place of the hottest pixel.

        Only truths that are masks (`are_masks`) have a plain IoU.
        """
        cious = self.ciou(masks_B2P)
        ious = self.ciou(masks_B2P[:, :1], empty=1.0)[:, 0] if are_masks else np.full(len(cious), np.nan)
        rows = zip(cious.tolist(), self.hold(peaks_B).tolist(), ious.tolist(), strict=True)
        return [ClipScore(ciou=ciou, area_ciou=area, hit=hit, iou=iou) for (ciou, area), hit, iou in rows]

    def hold(self, places_B: Tensor) -> NDArray[np.bool_]:
        """[B] whether each truth is not 0 at an index of its flattened map; False for an index below 0."""
        values = self.maps.gather(1, places_B.clamp(0)[:, None])[:, 0]
        held: NDArray[np.bool_] = ((values > 0) & (places_B >= 0)).cpu().numpy()
        return held

    def best_ciou(self, pixels: int) -> NDArray[np.float64]:
        """[B] largest cIoU of any mask of `pixels` pixels: it contains the pixels of largest weight."""
        whole_pixels = 2 * self.total - self.pixels  # those of weight 1
        taken = np.minimum(self.pixels, pixels)
        hit = (taken + np.minimum(whole_pixels, pixels)) / 2
        return _quotient(hit, self.total + np.maximum(0, pixels - self.pixels))


def _numbers(sums: Tensor) -> NDArray[np.float64]:
    return sums.cpu().numpy().astype(np.float64)


def _quotient(hit: NDArray[np.float64], whole: NDArray[np.float64], empty: float = 0.0) -> NDArray[np.float64]:
    return np.divide(hit, whole, out=np.full_like(hit, empty), where=whole > 0)


def truth_map(cells: ClipCells, protocol: Protocol, box_rule: str) -> NDArray[np.float32]:
    """The ground truth [side, side] of a clip; `box_rule` (`avloc.metrics.ground_truth`) is unused for masks."""
    if cells.mask:
        return mask_truth(decode_mask(cells.mask), protocol.side)
    boxes = cells.boxes[:1] if protocol.boxes == "first" else cells.boxes
    return ground_truth(boxes, box_rule, protocol.side)


def truths_of(
    clips: Sequence[ClipCells], protocol: Protocol, box_rule: str, device: torch.device | str = "cpu"
) -> Truths:
    """The ground truths of some clips, see `truth_map`."""
    maps = np.stack([truth_map(cells, protocol, box_rule) for cells in clips])
    return Truths(torch.from_numpy(maps).to(device).flatten(1))


def blocks(clips: Iterable[ClipCells], device: torch.device | str = "cpu") -> Iterator[list[ClipCells]]:
    """Consecutive clips with the same maps of the same sizes, all with masks or all with boxes."""

    def kind(cells: ClipCells) -> tuple[object, ...]:
        return bool(cells.mask), cells.shipped_resize, [(name, cells.maps[name].shape) for name in cells.maps]

    size = 16 if torch.device(device).type == "cpu" else 128  # a CPU's cache holds no more maps of pixels
    for _, alike in groupby(clips, kind):
        while block := list(islice(alike, size)):
            yield block


def masks_of(heats_BHW: Tensor, truths: Truths, protocol: Protocol) -> Tensor:
    """[B, 2, P] masks of heat maps: by the protocol's threshold, and of as many pixels as the truth has."""
    heats = heats_BHW.flatten(1)
    median = np.full_like(truths.pixels, median_rank(truths.size))
    limits = order_statistics(heats, np.stack([median, area_ranks(truths.size, truths.pixels)], 1))
    if protocol.threshold == "half":
        limits[:, 0] = 0.5
    return threshold_masks(heats, limits, protocol.comparison)


def score_heats(heats_BHW: Tensor, truths: Truths, protocol: Protocol, *, are_masks: bool = False) -> list[ClipScore]:
    """Threshold heat maps [B, side, side] in [0, 1] by the protocol and compare the masks with the truths.

    Only truths that are masks (`are_masks`) have a plain IoU.
    """
    heats = heats_BHW.flatten(1)
    peak = peaks(heats)
    has_peak = heats.gather(1, peak[:, None])[:, 0] > 0  # not a constant map, nor one with a NaN
    masks = masks_of(heats_BHW, truths, protocol)
    return truths.scores(masks, torch.where(has_peak, peak, -1), are_masks=are_masks)


def score_clips(
    clips: Iterable[ClipCells],
    weights: Mapping[str, float],
    protocol: Protocol,
    box_rule: str,
    device: torch.device | str = "cpu",
) -> Iterator[ClipScore]:
    """The scores of clips, in their order, for one map or the weighted sum of several."""
    for block in blocks(clips, device):
        heats = HeatMaps([cells.maps for cells in block], block[0].shipped_resize, device).heat(weights, protocol)
        truths = truths_of(block, protocol, box_rule, device)
        yield from score_heats(heats, truths, protocol, are_masks=bool(block[0].mask))
