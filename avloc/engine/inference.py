"""Clips to maps of cells: each network runs once, whatever the number of protocols.

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
from avloc.engine.fusion import OWN, SHIPPED, Cells, Fusion
from avloc.malloc import release_freed_memory
from avloc.methods import Embeddings
from avloc.priors import DetrPrior, ObjectPrior
from avloc.progress import Listener, Progress, silent
from avloc.protocols import Protocol

NOT_FINITE = "the {} map is not finite"
SILENCE = "silence"
WHITE_NOISE = "noise"
OTHER_CLASS = "other-class"
_TRIM_EVERY = 64
"""Blocks. Results are kept and batches freed, which fragments the heap: 50 kB a clip over tens of thousands."""
BLOCK = 16
"""Batch size of the networks."""


@dataclass(frozen=True, kw_only=True)
class ClipCells:
    """Maps and annotation of one clip."""

    id: str
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """[n, 4] in fractions of the picture."""
    mask: bytes = b""
    """PNG mask of the sounding object, if the annotation is a mask."""
    maps: Mapping[str, Cells] = field(default_factory=dict)
    """[h, w] each: `av` (cosines) and, if requested, `own`, `object` (activations), `detr` (attention; absent if no
    query was confident) and `shipped` (the card's fusion)."""
    shipped_resize: str = Protocol.resize
    """Interpolation of `shipped` to pixels."""
    wrong: Mapping[str, Cells] = field(default_factory=dict)
    """Kind of wrong sound -> cosines of the same picture with it, [draws, h, w]; always with `silence`."""
    reason: str = ""
    """Why the clip cannot be scored; finite maps are kept."""


@dataclass(frozen=True, kw_only=True)
class WrongSounds:
    """Embeddings [draws, D] of sounds that do not belong to a picture. Silence is encoded if it is absent."""

    silence: Tensor | None = None
    noise: Tensor | None = None
    """The same for every picture."""
    of_clips: Mapping[str, Tensor] = field(default_factory=dict)
    """Clip id -> its own sound, [1, D]."""
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Clip id -> clips of other classes, keys of `of_clips`, whose sounds its picture is paired with."""


def predict_cells(
    engine: Engine,
    batches: Iterable[Batch],
    *,
    prior: ObjectPrior | None = None,
    detr: DetrPrior | None = None,
    fusion: Fusion | None = None,
    wrong: WrongSounds | None = None,
    total: int | None = None,
    task: str = "scoring",
    listener: Listener = silent,
) -> Iterator[ClipCells]:
    """One entry per clip, in the order of the batches, with a `reason` for clips that could not be decoded.

    Args:
        engine: the model, in evaluation mode.
        batches: square frames with sound and boxes, and pictures for the priors.
        prior: adds `object` maps.
        detr: adds `detr` maps.
        fusion: of the model's card; adds `shipped` maps, and `own` if it uses the model's activation.
        wrong: adds maps of wrong sounds other than silence.
        total: number of clips, for the progress.
        task: name of the progress.
        listener: receives the progress.
    """
    done, wrong = 0, wrong or WrongSounds()
    for number, block in enumerate(_blocks(batches)):
        if number % _TRIM_EVERY == 0:
            release_freed_memory()
        rows = [entry for entry in block if isinstance(entry, _Row)]
        if wrong.silence is None and rows:
            wrong = replace(wrong, silence=_silence(engine, rows[0].batch))
        decoded = iter(_block_cells(engine, rows, wrong, prior, detr, fusion))
        for entry in block:
            yield next(decoded) if isinstance(entry, _Row) else entry
        done += len(block)
        listener(Progress(task=task, done=done, total=total))


@dataclass(frozen=True)
class _Row:
    batch: Batch
    row: int


def _blocks(batches: Iterable[Batch]) -> Iterator[list[_Row | ClipCells]]:
    """The clips in order, in blocks of `BLOCK` decoded clips whatever the loader's batch size."""
    block: list[_Row | ClipCells] = []
    decoded = 0
    for batch in batches:
        rows, failures, failed = iter(range(len(batch.ids))), iter(batch.failures), set(batch.failed_at)
        for place in range(len(batch.ids) + len(batch.failures)):
            if place in failed:
                clip_id, reason = next(failures)
                block.append(ClipCells(id=clip_id, reason=reason))
                continue
            block.append(_Row(batch, next(rows)))
            decoded += 1
            if decoded == BLOCK:
                yield block
                block, decoded = [], 0
    if block:
        yield block


@torch.inference_mode()
def _silence(engine: Engine, batch: Batch) -> Tensor:
    return engine.encode_sound(torch.zeros_like(batch.sound[:1]), batch.rate)


@torch.inference_mode()
def _block_cells(
    engine: Engine,
    rows: Sequence[_Row],
    wrong: WrongSounds,
    prior: ObjectPrior | None,
    detr: DetrPrior | None,
    fusion: Fusion | None,
) -> list[ClipCells]:
    out: list[ClipCells] = []
    if rows:
        frames, sound = _filled([r.batch.frames[r.row] for r in rows]), _filled([r.batch.sound[r.row] for r in rows])
        embeddings = engine.embed(frames, sound, rows[0].batch.rate)
        by_name = {"av": _numpy(engine.similarity(embeddings))}
        if fusion is not None and fusion.own is not None:
            assert embeddings.activation is not None, "the engine computes it for every picture"
            by_name[OWN] = _numpy(embeddings.activation)
        if prior is not None:
            by_name["object"] = _numpy(prior.maps(_filled([_given(r.batch.prior_frames)[r.row] for r in rows])))
        for place, at in enumerate(rows):
            maps = {name: cells[place] for name, cells in by_name.items()}
            if detr is not None:
                (attention,) = detr.maps(_given(at.batch.detr_frames)[at.row][None])
                maps |= {} if attention is None else {"detr": _numpy(attention)}
            image = embeddings.image[place : place + 1]
            out.append(_clip_cells(at, maps, fusion, _wrong_maps(engine, image, at.batch.ids[at.row], wrong)))
    return out


def _filled(tensors: Sequence[Tensor]) -> Tensor:
    """Stack and pad with zeros to a whole block, because kernels round differently for other batch sizes."""
    block = tensors[0].new_zeros((BLOCK, *tensors[0].shape))
    block[: len(tensors)] = torch.stack(list(tensors))
    return block


def _wrong_maps(engine: Engine, image_1DHW: Tensor, clip_id: str, wrong: WrongSounds) -> dict[str, Cells]:
    others = [wrong.of_clips[name] for name in wrong.others.get(clip_id, ())]
    sounds = {SILENCE: wrong.silence, WHITE_NOISE: wrong.noise, OTHER_CLASS: torch.cat(others) if others else None}
    return {
        kind: _numpy(torch.cat([engine.similarity(Embeddings(image_1DHW, draw[None])) for draw in vectors]))
        for kind, vectors in sounds.items()
        if vectors is not None
    }


def _clip_cells(at: _Row, maps: dict[str, Cells], fusion: Fusion | None, wrong: dict[str, Cells]) -> ClipCells:
    batch, row = at.batch, at.row
    finite = {name: cells for name, cells in maps.items() if np.isfinite(cells).all()}
    if len(finite) < len(maps):
        broken = next(name for name in maps if name not in finite)
        return ClipCells(id=batch.ids[row], maps=finite, reason=NOT_FINITE.format(broken))
    how = Protocol.resize
    if fusion is not None:
        how = fusion.resize
        maps[SHIPPED] = fusion.cells(maps["av"], {name: maps[name] for name in (OWN,) if fusion.own})
    clip_id, boxes, mask = batch.ids[row], batch.boxes[row], batch.masks[row]
    return ClipCells(id=clip_id, boxes=boxes, mask=mask, maps=maps, shipped_resize=how, wrong=wrong)


def _given(frames: Tensor | None) -> Tensor:
    assert frames is not None, "clips for a prior are loaded with its side"
    return frames


def _numpy(cells: Tensor) -> Cells:
    values: Cells = cells.float().cpu().numpy()
    return values
