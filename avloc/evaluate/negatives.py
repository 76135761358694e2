"""The same pictures with sounds that are not in them: silence, noise, sounds of other classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from avloc.engine import NOISE, OTHER, SILENCE, ClipCells, WrongSounds, truth_of
from avloc.heatmap import resize
from avloc.metrics import NegativeScores, negative_scores, overlap, share_above, universal_thresholds
from avloc.protocols import Protocol

if TYPE_CHECKING:
    from avloc.engine import Engine
    from avloc.store import Store

KINDS = (SILENCE, NOISE, OTHER)
_SEED = 1234
_ODD, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)  # scatter the bits of a pair's number


def wrong_sounds(engine: Engine, store: Store, labels: Mapping[str, str], draws: int) -> WrongSounds:
    """Unit vectors of the wrong sounds that the pictures of some clips are shown with.

    Args:
        engine: the model.
        store: holds the clips.
        labels: clip id -> class, of the clips to be scored; without two classes there is no sound of another one.
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
    needed = sorted({other for others in chosen.values() for other in others})
    vectors = {
        clip_id: encode([fit_sound(store.read(clip_id).sound, store.spec.rate, engine.config)[0]], rate)
        for clip_id in needed
    }
    other = {clip_id: torch.cat([vectors[name] for name in others]) for clip_id, others in chosen.items()}
    return WrongSounds(noise=encode(noise, rate), other=other)


def _other_clips(labels: Mapping[str, str], draws: int) -> dict[str, list[str]]:
    """For each clip the clips of other classes that it is heard with.

    Every pair of clips has a number of its own, and the lowest wins: a clip that is missing changes nothing but the
    pictures that would have been heard with it.
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
    """Scores at each universal threshold, on the cosines themselves: a minimum and maximum of their own say nothing.

    Args:
        clips: with maps of wrong sounds, in any order.
        protocol: side, resize and boxes.
        box_rule: how boxes become a map.
    """
    ordered = sorted(clips, key=lambda cells: cells.id)
    peaks = [
        float(map_HW.max())
        for cells in ordered
        for kind in KINDS
        if kind in cells.wrong
        for map_HW in _grown(cells.wrong[kind], protocol)
    ]
    return {
        rule: _at_threshold(rule, threshold, ordered, protocol, box_rule)
        for rule, threshold in universal_thresholds(np.array(peaks)).items()
    }


def _grown(cells_Nhw: NDArray[np.float32], protocol: Protocol) -> NDArray[np.float32]:
    maps: NDArray[np.float32] = resize(torch.from_numpy(cells_Nhw), (protocol.side,) * 2, protocol.resize).numpy()
    return maps


def _at_threshold(
    rule: str, threshold: float, clips: Sequence[ClipCells], protocol: Protocol, box_rule: str
) -> NegativeScores:
    cious: list[float] = []
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    moved: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for cells in clips:
        own = _grown(cells.maps["av"][None], protocol)[0] > np.float64(threshold)
        cious.append(truth_of(cells, protocol, box_rule).ciou(own))
        for kind in KINDS:
            if kind in cells.wrong:
                maps = _grown(cells.wrong[kind], protocol)
                shares[kind].append(float(np.mean(share_above(maps, threshold))))
                alike = [float(overlap(own, map_HW > np.float64(threshold))) for map_HW in maps]
                moved[kind].append(float(np.mean(alike)))
    return negative_scores(
        rule,
        threshold,
        np.array(cious),
        {kind: np.array(values) for kind, values in shares.items()},
        {kind: np.array(values) for kind, values in moved.items()},
    )


def has_negatives(clips: Sequence[ClipCells]) -> bool:
    """Whether wrong sounds beside silence were heard."""
    return any(NOISE in cells.wrong for cells in clips)
