"""The training clips of a store, with their hints; `avloc.train.batches.EpochBatches` has their order."""

from __future__ import annotations

from collections.abc import Sequence

from avloc.config import ModelConfig, TrainConfig
from avloc.dataset import ClipSet
from avloc.errors import Refused, UsageError
from avloc.registry import METHOD_SPECS
from avloc.store import Hints, Store


def training_set(store: Store, ids: Sequence[str], config: TrainConfig) -> ClipSet:
    """Clips for training, with the hints that the loss needs, from the teachers of the configuration.

    Clips for which a teacher failed, or that an import does not cover, are left out.

    Raises:
        Refused: the store does not fit the model, or hints are absent or incomplete.
        UsageError: the hints of a teacher have another width than the model.
    """
    wants_hints = METHOD_SPECS[config.model.method].hints
    audio = Hints(store.folder, config.audio_teacher) if wants_hints and config.loss.audio_hint else None
    visual = Hints(store.folder, config.visual_teacher) if wants_hints and config.loss.visual_hint else None
    for hints, kind in ((audio, "audio"), (visual, "visual")):
        if hints is not None:
            if not hints.imported:  # an import may not cover all clips
                hints.check_finished(ids)
            ids = [clip_id for clip_id in ids if clip_id in hints.shards]
            _check_width(hints, kind, config.model)
    scale = config.augment.scale
    least_side = int(config.model.frame * scale)
    return ClipSet(store, ids, config.model, least_side=least_side, scale=scale, audio_hints=audio, visual_hints=visual)


def _check_width(hints: Hints, kind: str, model: ModelConfig) -> None:
    """Check that hints that are vectors, per clip or per cell, are as wide as the common space."""
    shape = hints.stamp["shape"]
    if kind == "audio" and len(shape) != 1:
        reason = f"{hints.folder} has hints of shape {shape}, not one vector per clip"
        raise Refused(reason, hint=f"Prepare another store: avloc prepare VIDEOS --for {model.method} --out STORE")
    if len(shape) != 2 and shape[0] != model.dim:
        valid = f"--dim {shape[0]}, or --no-{kind}-hint"
        raise UsageError(f"--dim {model.dim} does not fit the {kind} hints of width {shape[0]}; valid: {valid}")
