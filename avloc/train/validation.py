"""Scores of a model on held-out clips, which select the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from avloc.config import TrainConfig
from avloc.dataset import Batch, clip_loader
from avloc.engine import Engine, predict_cells, score_clips, supervise
from avloc.errors import Refused
from avloc.loader_processes import process_count
from avloc.metrics import summarise
from avloc.protocols import Protocol
from avloc.registry import METHOD_SPECS
from avloc.train.plan import Validation

VALIDATION_PROCESSES = 2
"""Most loader processes of validation: those of training keep batches of the next epoch in shared memory."""


def validate(engine: Engine, validation: Validation, config: TrainConfig) -> tuple[float, float]:
    """The selection score (higher is better) and the value to log. Leaves the model in training mode.

    Raises:
        Refused: a held-out clip is damaged.
    """
    engine.model.eval()
    positions = range(len(validation.clips))
    # No batch of one clip: its loss would have no negatives and be zero.
    parts = np.array_split(positions, max(1, len(positions) // config.batch))
    batches = [part.tolist() for part in parts]
    loader = clip_loader(validation.clips, batches, workers=min(process_count(config.workers), VALIDATION_PROCESSES))
    if validation.annotated:
        score = value = _score(engine, loader, validation.box_rule)
    else:
        value = _loss(engine, loader, config)
        score = -value
    engine.model.train()
    return score, value


def check_damage(failures: Sequence[tuple[str, str]]) -> None:
    """Stop if a clip could not be decoded.

    Raises:
        Refused: there are failures; names the first.
    """
    for clip_id, reason in failures:
        hint = "Delete the shard that holds it and run prepare again."
        raise Refused(f"clip {clip_id} of the store is damaged: {reason}", hint=hint)


def _score(engine: Engine, batches: Iterable[Batch], box_rule: str) -> float:
    protocol, clips = Protocol(), []
    for cells in predict_cells(engine, batches):
        check_damage([(cells.id, cells.reason)] if cells.reason else [])
        clips.append(cells)
    scores = score_clips(clips, {"av": 1.0}, protocol, box_rule, engine.device)
    return summarise([score.ciou for score in scores], protocol.success).ciou_50


@torch.inference_mode()
def _loss(engine: Engine, batches: Iterable[Batch], config: TrainConfig) -> float:
    losses, term = [], METHOD_SPECS[config.model.method].term
    for batch in batches:
        check_damage(batch.failures)
        embeddings = engine.embed(batch.frames, batch.sound, batch.rate)
        truth = supervise(batch, config.loss)
        terms = engine.model.losses(embeddings, batch.hints, config.loss, truth)
        losses += [terms[term].item()] * len(batch.ids)
    return float(np.mean(losses))
