"""`--report DIR`: the evaluation as files, with pictures of some of its clips."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avloc import __version__
from avloc.errors import InputError
from avloc.evaluate.multi_model import Session
from avloc.evaluate.records import ClipRow
from avloc.evaluate.run import Evaluation
from avloc.report import ReportPicture, write_report

if TYPE_CHECKING:
    from avloc.engine import ClipCells
    from avloc.protocols import Protocol
    from avloc.store import Store

SHOWN = 200
"""Clips with pictures on the page, to limit its size. Its table has all clips."""
_SIDE = 56
_FRAME_SIDE = 224
_QUALITY = 85


def report_session(folder: Path, session: Session, command: str) -> None:
    """Write the report of an `avloc eval` command into a folder, created if missing; an older report is replaced."""
    import torch

    about = {
        "command": command,
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    reports = [report.as_json() for report in session.evaluation.reports]
    further = [entry.as_json() for entry in session.summaries] + [entry.as_json() for entry in session.comparisons]
    write_report(folder, about, reports, _pictures(session.evaluation), further)


def _pictures(evaluation: Evaluation) -> list[ReportPicture]:
    """Of clips evenly spaced in the ranking by the first map of the first report, from the worst to the best."""
    first = next((report for report in evaluation.reports if report.maps), None)
    if evaluation.store is None or first is None:
        return []
    kinds: dict[str, list[str]] = {}
    for report in evaluation.reports:
        kinds.setdefault(report.model, list(report.maps))
    by_id = [{cells.id: cells for cells in of_model} for of_model in evaluation.cells]
    out = []
    for clip_id in _spread(first.clips, next(iter(first.maps))):
        maps = {
            model: _heats(cells[clip_id], kinds[model], first.protocol)
            for model, cells in zip(kinds, by_id, strict=True)
            if clip_id in cells
        }
        try:
            out.append(_picture(evaluation.store, clip_id, maps))
        except InputError:  # without a model the picture was not decoded before; the table of the page has the clip
            continue
    return out


def _spread(rows: Sequence[ClipRow], kind: str) -> list[str]:
    ranked = sorted(rows, key=lambda row: (row.scores[kind].ciou, row.id))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int))
    return [ranked[place].id for place in places]


def _heats(cells: ClipCells, kinds: Sequence[str], protocol: Protocol) -> dict[str, np.ndarray]:
    from avloc.engine import HeatMaps, map_weights

    small = replace(protocol, side=_SIDE)
    heats = HeatMaps([cells.maps], cells.shipped_resize)
    maps = {kind: heats.heat(weights, small)[0].numpy() for kind, weights in map_weights(small, kinds).items()}
    return {kind: (np.nan_to_num(heat) * 65_535).round().astype(np.uint16) for kind, heat in maps.items()}


def _picture(store: Store, clip_id: str, maps: dict[str, dict[str, np.ndarray]]) -> ReportPicture:
    from avloc.media.pictures import decode_picture, encode_jpeg, shrink

    clip = store.read(clip_id)
    frame = shrink(decode_picture(clip.picture), _FRAME_SIDE)
    return ReportPicture(
        id=clip_id,
        jpeg=encode_jpeg(frame, quality=_QUALITY),
        size=(frame.shape[1], frame.shape[0]),
        boxes=clip.boxes,
        mask_png=clip.mask,
        heats=maps,
    )
