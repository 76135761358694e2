"""Clips to maps of cells, before any protocol: each network runs once, whatever is scored afterwards.

Shape letters: B batch, D common space, N samples, h w cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.dataset import Batch
from avloc.engine.core import Engine
from avloc.events import Listener, Progress, silent
from avloc.methods import Embeddings
from avloc.priors import DetrPrior, ObjectPrior

NOT_FINITE = "the {} map is not finite"
SILENCE = "silence"
NOISE = "noise"
OTHER = "other-class"


@dataclass(frozen=True, kw_only=True)
class ClipCells:
    """What the networks say about one clip."""

    id: str
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """[n, 4] in fractions of the picture."""
    mask: bytes = b""
    """PNG mask of the sounding object, where the annotation is one."""
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """`av` (cosines) and, where they were run, `object` and `detr` (activations, attention): [h, w] each. `detr` is
    absent where DETR was sure of nothing."""
    wrong: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Kind of wrong sound -> cosines of the same picture with it, [draws, h, w]; `silence` is always there."""
    reason: str = ""
    """Why the clip cannot be scored; maps that are fine may stand above nevertheless."""


@dataclass(frozen=True, kw_only=True)
class WrongSounds:
    """Sounds that do not belong to a picture, as unit vectors [draws, D]. Silence is filled in where it is absent."""

    silence: Tensor | None = None
    noise: Tensor | None = None
    """The same for every picture, as silence is."""
    of_clips: Mapping[str, Tensor] = field(default_factory=dict)
    """Clip id -> its own sound, [1, D]."""
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Clip id -> clips of other classes, keys of `of_clips`, that it is heard with."""


def predict_cells(
    engine: Engine,
    batches: Iterable[Batch],
    *,
    prior: ObjectPrior | None = None,
    detr: DetrPrior | None = None,
    wrong: WrongSounds | None = None,
    total: int | None = None,
    task: str = "scoring",
    listener: Listener = silent,
) -> Iterator[ClipCells]:
    """One entry a clip, in the order of the batches, those that could not be decoded included.

    Args:
        engine: the model, in evaluation mode.
        batches: square frames with sound and boxes, and with pictures for the priors that are given.
        prior: adds `object` maps.
        detr: adds `detr` maps.
        wrong: adds maps of wrong sounds beside silence.
        total: number of clips, for the progress.
        task: what the progress is called.
        listener: hears the progress.
    """
    done, wrong = 0, wrong or WrongSounds()
    for batch in batches:
        if wrong.silence is None and batch.ids:
            wrong = replace(wrong, silence=_silence(engine, batch))
        rows, failures = iter(range(len(batch.ids))), iter(batch.failures)
        size, failed = len(batch.ids) + len(batch.failures), set(batch.failed_at)
        for place in range(size):
            if place in failed:
                clip_id, reason = next(failures)
                yield ClipCells(id=clip_id, reason=reason)
            else:
                yield _clip_cells(engine, batch, next(rows), (wrong, prior, detr))
        done += size
        listener(Progress(task=task, done=done, total=total))


@torch.inference_mode()
def _silence(engine: Engine, batch: Batch) -> Tensor:
    return engine.encode_sound(torch.zeros_like(batch.sound[:1]), batch.rate)


def _clip_cells(
    engine: Engine, batch: Batch, row: int, beside: tuple[WrongSounds, ObjectPrior | None, DetrPrior | None]
) -> ClipCells:
    # One clip at a time: kernels round differently for other batch sizes, and a rounding moves pixels over a cut.
    with torch.inference_mode():
        maps, wrong = _maps(engine, batch, row, beside)
    broken = [name for name, cells in maps.items() if not np.isfinite(cells).all()]
    if broken:
        whole = {name: cells for name, cells in maps.items() if name not in broken}
        return ClipCells(id=batch.ids[row], maps=whole, reason=NOT_FINITE.format(broken[0]))
    return ClipCells(id=batch.ids[row], boxes=batch.boxes[row], mask=batch.masks[row], maps=maps, wrong=wrong)


def _maps(
    engine: Engine, batch: Batch, row: int, beside: tuple[WrongSounds, ObjectPrior | None, DetrPrior | None]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    wrong, prior, detr = beside
    one = slice(row, row + 1)
    heard = engine.embed(batch.frames[one], batch.sound[one], batch.rate)
    maps = {"av": _numpy(engine.similarity(heard)[0])}
    if prior is not None:
        maps["object"] = _numpy(prior.maps(_given(batch.prior_frames)[one])[0])
    if detr is not None:
        (attention,) = detr.maps(_given(batch.detr_frames)[one])
        if attention is not None:
            maps["detr"] = _numpy(attention)
    others = [wrong.of_clips[name] for name in wrong.others.get(batch.ids[row], ())]
    sounds = {
        SILENCE: wrong.silence,
        NOISE: wrong.noise,
        OTHER: torch.cat(others) if others else None,
    }
    return maps, {
        kind: np.stack([_numpy(engine.similarity(Embeddings(heard.image, draw[None]))[0]) for draw in vectors])
        for kind, vectors in sounds.items()
        if vectors is not None
    }


def _given(frames: Tensor | None) -> Tensor:
    assert frames is not None, "clips for a prior are loaded with its side"
    return frames


def _numpy(cells_hw: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = cells_hw.float().cpu().numpy()
    return values
