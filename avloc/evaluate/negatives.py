"""Scores with sounds that have no visible source: silence, noise, other classes, and pairs of extended sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import (
    OTHER_CLASS,
    SILENCE,
    WHITE_NOISE,
    ClipCells,
    HeatMaps,
    Truths,
    WrongSounds,
    map_weights,
    truths_of,
)
from avloc.evaluate.records import ClipRow
from avloc.heatmap import resize
from avloc.metrics import (
    ExtendedScores,
    NegativeScores,
    confidence,
    extended_scores,
    intersection_over_union,
    negative_scores,
    share_above,
    universal_thresholds,
)
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from avloc.engine import Engine
    from avloc.store import Store

KINDS = (SILENCE, WHITE_NOISE, OTHER_CLASS)
_SEED = 1234
_ODD, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)  # scatter the bits of a pair's number


def wrong_sounds(engine: Engine, store: Store, labels: Mapping[str, str], draws: int) -> WrongSounds:
    """Embeddings of the wrong sounds that pictures are paired with.

    Args:
        engine: the model.
        store: of the clips.
        labels: clip id -> class, of every clip of the store with a truth, scored or not.
        draws: of noise, and of other-class sounds for each clip.
    """
    from avloc.dataset import fit_sound

    @torch.inference_mode()
    def encode(waveforms: Iterable[NDArray[np.float32] | NDArray[np.int16]], rate: int) -> torch.Tensor:
        return torch.cat([engine.encode_sound(torch.from_numpy(wave.copy())[None], rate) for wave in waveforms])

    rate = engine.config.rate or store.spec.rate
    samples = int(engine.config.seconds * rate)
    noise = [np.random.default_rng((_SEED, draw)).standard_normal(samples, np.float32) for draw in range(draws)]
    chosen = _other_clips(labels, draws)
    vectors = {
        clip_id: encode([fit_sound(store.read(clip_id).sound, store.spec.rate, engine.config)[0]], rate)
        for clip_id in sorted({other for others in chosen.values() for other in others})
    }
    return WrongSounds(noise=encode(noise, rate), of_clips=vectors, others=chosen)


def _other_clips(labels: Mapping[str, str], draws: int) -> dict[str, list[str]]:
    """For each clip the clips of other classes whose sounds its picture is paired with.

    Those with the lowest hash of the pair, so that a missing clip changes only its own pairs.
    """
    names = np.array(sorted(name for name, label in labels.items() if label))
    classes = np.array([labels[name] for name in names])
    keys = np.array([_key(str(name)) for name in names], np.uint64)
    out = {}
    for name, label, key in zip(names, classes, keys, strict=True):
        others = np.flatnonzero(classes != label)
        if len(others):
            tickets = ((keys[others] ^ key ^ _key(str(draw))) * _ODD for draw in range(draws))
            out[str(name)] = [str(names[others[(ticket ^ (ticket >> _HALF)).argmin()]]) for ticket in tickets]
    return out


def _key(text: str) -> np.uint64:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def score_negatives(clips: Sequence[ClipCells], protocol: Protocol, box_rule: str) -> dict[str, NegativeScores]:
    """Scores at each universal threshold, on cosines: heat maps would be scaled by their own minimum and maximum."""
    ordered = sorted(clips, key=lambda cells: cells.id)
    peaks = [
        float(map_HW.max())
        for cells in ordered
        for kind in KINDS
        if kind in cells.wrong
        for map_HW in _grown(cells.wrong[kind], protocol)
    ]
    tallies = [_Tally(rule, threshold) for rule, threshold in universal_thresholds(np.array(peaks)).items()]
    for cells in ordered:
        truth = truths_of([cells], protocol, box_rule)
        own = _grown(cells.maps["av"][None], protocol)[0]
        wrong = {kind: _grown(cells.wrong[kind], protocol) for kind in KINDS if kind in cells.wrong}
        for tally in tallies:
            tally.add(truth, own, wrong)
    return {tally.rule: tally.scores() for tally in tallies}


def _grown(cells_Nhw: NDArray[np.float32], protocol: Protocol) -> NDArray[np.float32]:
    maps: NDArray[np.float32] = resize(torch.from_numpy(cells_Nhw), (protocol.side,) * 2, protocol.resize).numpy()
    return maps


class _Tally:
    """Scores at one universal threshold, a cosine; pixels strictly above it, in double precision, are inside."""

    def __init__(self, rule: str, threshold: float) -> None:
        self.rule, self._threshold = rule, np.float64(threshold)
        self._cious: list[float] = []
        self._shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._overlaps: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def add(self, truth: Truths, own_HW: NDArray[np.float32], wrong: Mapping[str, NDArray[np.float32]]) -> None:
        """Add a clip: its own map, and for each kind of wrong sound maps [draws, H, W]."""
        own = own_HW > self._threshold
        self._cious.append(truth.ciou(torch.from_numpy(own).float().view(1, 1, -1)).item())
        for kind, maps in wrong.items():
            self._shares[kind].append(float(np.mean(share_above(maps, self._threshold))))
            overlaps = [float(intersection_over_union(own, map_HW > self._threshold)) for map_HW in maps]
            self._overlaps[kind].append(float(np.mean(overlaps)))

    def scores(self) -> NegativeScores:
        """The scores of all clips added."""
        return negative_scores(self.rule, float(self._threshold), self._cious, self._shares, self._overlaps)


def has_negatives(clips: Sequence[ClipCells]) -> bool:
    """Whether there are maps of wrong sounds other than silence."""
    return any(WHITE_NOISE in cells.wrong for cells in clips)


def score_extended(
    rows: Sequence[ClipRow],
    sounding: Sequence[ClipCells],
    silent: Sequence[ClipCells],
    protocol: Protocol,
    kinds: Sequence[str],
) -> dict[str, ExtendedScores]:
    """Scores on an extended set of each kind of map with a fixed range, `av`, `object` and `fused`.

    Args:
        rows: cIoU of the sounding clips.
        sounding: their maps, in any order.
        silent: maps of the silent pairs.
        protocol: resize, side and the weights of the fused map.
        kinds: of map.

    Source: SLAVC `test.py`.
    """
    by_id = {cells.id: cells for cells in sounding}
    out = {}
    for name, weights in map_weights(protocol, kinds).items():
        if set(weights) <= {"av", "object"}:
            cious = [row.scores[name].ciou for row in rows] + [float("nan")] * len(silent)
            ordered = [*(by_id[row.id] for row in rows), *silent]
            heights = [confidence(HeatMaps([c.maps]).in_fixed_range(weights, protocol)[0].numpy()) for c in ordered]
            out[name] = extended_scores(np.array(heights), np.array(cious))
    return out
