"""Clips and a model to per-clip scores; validation during training and `avloc eval` share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avloc.protocols import Protocol
from avloc.dataset import Batch
from avloc.engine.core import Engine
from avloc.events import Listener, Progress, silent
from avloc.heatmap import FUSED_WEIGHTS, fuse, heat_maps, median_masks
from avloc.metrics import ciou, ground_truth
from avloc.priors import ObjectPrior


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """cIoU of one clip under each kind of map; `reason` says why there is none."""

    id: str
    ciou: Mapping[str, float]
    reason: str = ""


def score_clips(
    engine: Engine,
    batches: Iterable[Batch],
    protocol: Protocol,
    *,
    box_rule: str,
    prior: ObjectPrior | None = None,
    total: int | None = None,
    task: str = "scoring",
    listener: Listener = silent,
) -> list[ClipScore]:
    """Score every clip by the protocol, one entry each, in the order of the batches.

    Args:
        engine: the model, in evaluation mode.
        batches: square frames with sound and boxes.
        protocol: how maps become masks.
        box_rule: how boxes become ground truth (`avloc.metrics.ground_truth`).
        prior: with it, `object` and `fused` maps are scored beside `av`.
        total: number of clips, for the progress.
        task: what the progress is called.
        listener: hears the progress.
    """
    scores: list[ClipScore] = []
    for batch in batches:
        if batch.ids:
            scores += _score_batch(engine, batch, protocol, box_rule, prior)
        scores += [ClipScore(id=clip_id, ciou={}, reason=reason) for clip_id, reason in batch.failures]
        listener(Progress(task=task, done=len(scores), total=total))
    return scores


def _score_batch(
    engine: Engine, batch: Batch, protocol: Protocol, box_rule: str, prior: ObjectPrior | None
) -> list[ClipScore]:
    side = protocol.side
    heats = _heats(engine, batch, side, prior)
    truths = np.stack([ground_truth(boxes, box_rule, side) for boxes in batch.boxes])
    by_map = {name: ciou(median_masks(heat).numpy(), truths) for name, heat in heats.items()}
    return [
        ClipScore(id=clip_id, ciou={name: float(values[row]) for name, values in by_map.items()})
        for row, clip_id in enumerate(batch.ids)
    ]


def _heats(engine: Engine, batch: Batch, side: int, prior: ObjectPrior | None) -> dict[str, Tensor]:
    # One clip at a time: kernels round differently for other batch sizes, and a rounding can move a pixel over the cut.
    rows = [slice(row, row + 1) for row in range(len(batch.ids))]
    with torch.inference_mode():
        maps = [engine.predict(batch.frames[row], batch.sound[row], batch.rate) for row in rows]
        heats = {"av": heat_maps(torch.cat(maps).cpu(), (side, side))}
        if prior is not None:
            assert batch.prior_frames is not None, "clips for a prior are loaded with prior_side"
            objects = torch.cat([prior.maps(batch.prior_frames[row]) for row in rows])
            heats["object"] = heat_maps(objects.cpu(), (side, side))
            heats["fused"] = fuse([heats["av"], heats["object"]], [FUSED_WEIGHTS["av"], FUSED_WEIGHTS["object"]])
    return heats
