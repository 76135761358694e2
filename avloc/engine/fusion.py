"""Fusion of maps of cells to heat maps, and the priors that take part in it.

There are two rules. `Fusion` is that of a model's card: maps of cells are smoothed, weighted and summed, and the sum is
resized once. `HeatMaps` is that of the evaluation protocols: each map is resized first, then heat maps are summed. The
map `shipped` of `eval` is the map that `localize` shows.

Names of maps: `av` similarity map, `own` mean activation of the model's vision backbone, `object` that of an ImageNet
network, `detr` DETR's attention, `centre` a map that falls from the middle of the picture, `shipped` the card's fusion.

Shape letters: B clips, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avloc.config import from_dict
from avloc.errors import UsageError, WeightsError
from avloc.heatmap import fuse, heat_maps, min_max, resize
from avloc.media.pictures import square
from avloc.networks.detr import stretched
from avloc.priors import DetrPrior, ObjectPrior
from avloc.progress import Listener, silent
from avloc.protocols import RESIZES, Protocol, valid_weights

_DETR, OWN, CENTRE, SHIPPED = "detr", "own", "centre", "shipped"
_MAX_SMOOTH = 5.0
_RANGES = {"av": (-1.0, 2.0), "object": (0.0, 2.5)}
"""Map -> lowest value and span for `fixed` fusion; DETR's attention has no common range."""
CARD_KEY = "fusion"
"""Entry of a model's card with the fields of `AdaptiveWeights`."""
RESIZE_KEY = "resize"
"""Entry of a model's card with the resize from cells to pixels, if it is not that of protocol `avloc`."""
Cells = NDArray[np.float32]
Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class AdaptiveWeights:
    """Weights of the similarity map and the model's own activation; the former grows with the peak cosine."""

    least: float = 0.6
    """Weight of the similarity map if its peak cosine is at most `unsure`; that of the own activation is the rest."""
    most: float = 0.6
    """The same if the peak cosine is at least `sure`; linear in between."""
    unsure: float = 0.0
    sure: float = 1.0
    smooth: float = 0.0
    """Standard deviation in cells of the Gaussian applied to both maps; 0 is no smoothing."""
    centre: float = 0.0
    """Weight of `centre_map`; the other two maps share the rest."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise UsageError(f"fusion: {self.least} to {self.most} is impossible; valid: 0 to 1, rising")
        if not -1 <= self.unsure < self.sure <= 1:
            raise UsageError(f"fusion: cosines {self.unsure} to {self.sure} are impossible; valid: -1 to 1, rising")
        if not 0 <= self.smooth <= _MAX_SMOOTH:
            raise UsageError(f"fusion: smooth {self.smooth} is impossible; valid: 0 to {_MAX_SMOOTH} cells")
        if not 0 <= self.centre <= 1:
            raise UsageError(f"fusion: centre {self.centre} is impossible; valid: 0 to 1")

    def weights(self, similarity_hw: Cells) -> dict[str, float]:
        """Weights of `av`, `own` and `centre` for these cosines; their sum is 1."""
        position = min(1.0, max(0.0, (float(similarity_hw.max()) - self.unsure) / (self.sure - self.unsure)))
        share = self.least + position * (self.most - self.least)
        rest = 1 - self.centre
        return {"av": rest * share, OWN: rest * (1 - share), CENTRE: self.centre}

    def smoothed(self, cells_hw: Cells) -> Cells:
        """The cells after the Gaussian, the border replicated."""
        if not self.smooth:
            return cells_hw
        return np.ascontiguousarray(_blur_rows(_blur_rows(cells_hw, self.smooth).T, self.smooth).T)

    @property
    def label(self) -> str:
        """The weights as the protocol line shows them."""
        share = f"{self.least:g}" if self.least == self.most else f"{self.least:g}-{self.most:g}"
        label = f"{share} av + rest {OWN}"
        if self.centre:
            label = f"{1 - self.centre:g} ({label}) + {self.centre:g} {CENTRE}"
        return label + (f", smoothed by {self.smooth:g} cells" if self.smooth else "")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The card's rule: how `localize` and `eval --maps shipped` fuse cells."""

    priors: Mapping[str, Callable[[Frame], Cells]] = field(default_factory=dict)
    """Name -> prior network, from a frame [H, W, 3] to its map [h, w]."""
    weights: Mapping[str, float] = field(default_factory=lambda: {"av": 1.0})
    label: str = ""
    """The weights as the protocol line shows them; empty for the similarity map alone."""
    own: AdaptiveWeights | None = None
    """Fuses the model's own activation instead of `priors`."""
    resize: str = Protocol.resize
    """Interpolation of cells to pixels or to a finer grid; one of `avloc.protocols.RESIZES`."""

    def prior_maps(self, frame: Frame, activation_hw: Tensor | None) -> dict[str, Cells]:
        """Maps of a frame that do not depend on the sound: those of `priors`, or the model's activation as `own`."""
        if self.own is None:
            return {name: prior(frame) for name, prior in self.priors.items()}
        assert activation_hw is not None, "the engine computes it for every picture"
        return {OWN: activation_hw.float().cpu().numpy()}

    def cells(self, similarity_hw: Cells, prior_maps: Mapping[str, Cells]) -> Cells:
        """Fused cells [h, w] of cosines and what `prior_maps` returns."""
        maps = {"av": similarity_hw, **prior_maps}
        if self.own is None:
            return fuse_cells(maps, self.weights, self.resize)
        smooth = {name: self.own.smoothed(cells) for name, cells in maps.items()}
        maps = {**smooth, CENTRE: centre_map(similarity_hw.shape)}
        return fuse_cells(maps, self.own.weights(similarity_hw), self.resize)


def card_fusion(card: Mapping[str, Any]) -> Fusion:
    """The fusion in a model's card; the similarity map alone if there is none.

    Raises:
        WeightsError: the card's fusion or resize is not valid.
    """
    return _own_fusion(None, card) if CARD_KEY in card else Fusion(resize=_resize_of(card))


def load_fusion(
    names: str,
    weights: Mapping[str, float] | None,
    card: Mapping[str, Any],
    weights_dir: Path | None,
    device: torch.device,
    listener: Listener = silent,
) -> Fusion:
    """Load the priors of `--object-prior`, with the weights of `--map-weights`.

    `names` is `own`, `none`, a network of `CONVNETS` (`avloc.networks.backbones`), `detr`, or the last two with a
    comma; empty selects the card's fusion. Without `weights`, `own` has those of the card and others those of protocol
    `avloc`.

    Raises:
        UsageError: unknown prior, or weights that do not match the maps.
        WeightsError: a prior's weights are absent or damaged, or the card's fusion or resize is not valid.
    """
    if names == OWN or (not names and CARD_KEY in card):
        return _own_fusion(weights, card)
    networks = [name for name in names.split(",") if name and name != "none"]
    kinds = {_DETR if name == _DETR else "object": name for name in networks}
    if len(kinds) != len(networks):
        raise UsageError(
            f"--object-prior {names}: valid are own, none, one network, detr, or the last two with a comma"
        )
    chosen = _checked({"av", *kinds}, dict(weights) if weights else _default_weights(set(kinds)))
    priors = {kind: _load_prior(name, weights_dir, device, listener) for kind, name in kinds.items()}
    label = " + ".join(f"{weight:g} {kinds.get(name, name)}" for name, weight in chosen.items()) if kinds else ""
    return Fusion(priors=priors, weights=chosen, label=label, resize=_resize_of(card))


def _own_fusion(weights: Mapping[str, float] | None, card: Mapping[str, Any]) -> Fusion:
    try:
        own = from_dict(AdaptiveWeights, card.get(CARD_KEY, {}), f"{CARD_KEY}.")
    except (UsageError, AttributeError, TypeError) as error:
        raise WeightsError(f"the model's card has an unusable fusion: {error}") from error
    if weights:
        shares = _checked({"av", OWN}, dict(weights))
        share = shares["av"] / sum(shares.values())
        own = replace(own, least=share, most=share, centre=0.0)
    return Fusion(own=own, label=own.label, resize=_resize_of(card))


def _resize_of(card: Mapping[str, Any]) -> str:
    how = card.get(RESIZE_KEY, Protocol.resize)
    if how not in RESIZES:
        raise WeightsError(f"the model's card has an unusable {RESIZE_KEY}: {how!r}; valid: {', '.join(RESIZES)}")
    return str(how)


def _default_weights(kinds: set[str]) -> dict[str, float]:
    known = (Protocol().fused, Protocol().fused_detr)
    fitting = (weights for weights in known if set(weights) == {"av", *kinds})
    return dict(next(fitting, dict.fromkeys(["av", *sorted(kinds)], 1 / (1 + len(kinds)))))


def _checked(names: set[str], weights: dict[str, float]) -> dict[str, float]:
    if set(weights) != names:
        raise UsageError(f"--map-weights names {', '.join(sorted(weights))}; the maps are {', '.join(sorted(names))}")
    if not valid_weights(weights):
        raise UsageError("--map-weights are impossible; valid: numbers of 0 or more, not all 0")
    return weights


def _load_prior(
    name: str, weights_dir: Path | None, device: torch.device, listener: Listener
) -> Callable[[Frame], Cells]:
    is_detr = name == _DETR
    prior = DetrPrior(weights_dir, device, listener) if is_detr else ObjectPrior(name, weights_dir, device, listener)

    def cells(frame: Frame) -> Cells:
        small = (stretched if is_detr else square)(frame, prior.side)
        with torch.inference_mode():
            found = prior.maps(torch.from_numpy(small.copy()).permute(2, 0, 1)[None])[0]
        return np.zeros((1, 1), np.float32) if found is None else found.cpu().numpy()

    return cells


def fuse_cells(maps: Mapping[str, Cells], weights: Mapping[str, float], how: str = Protocol.resize) -> Cells:
    """Weighted sum of maps [h, w], each resized to the finest grid and scaled to [0, 1]; a single map as it is."""
    if len(maps) == 1:
        return next(iter(maps.values()))
    rows, columns = zip(*(cells.shape for cells in maps.values()), strict=True)
    grid = (max(rows), max(columns))
    terms = [weights[name] * heat_maps(torch.from_numpy(cells)[None], grid, how)[0] for name, cells in maps.items()]
    return torch.stack(terms).sum(0).numpy()


def centre_map(grid: tuple[int, ...]) -> Cells:
    """[h, w] map that falls linearly from 1 in the middle to 0 in the corners."""
    down, across = (np.linspace(-1, 1, size, dtype=np.float32) if size > 1 else np.zeros(1) for size in grid)
    near: Cells = (1 - np.hypot(down[:, None], across) / np.sqrt(2)).astype(np.float32)
    return near


def _blur_rows(cells_hw: Cells, deviation: float) -> Cells:
    """Gaussian over the first axis, truncated at four deviations: bit-equal to `scipy.ndimage`, without its import."""
    reach = int(4 * deviation + 0.5)
    weights = np.exp(-0.5 / deviation**2 * np.arange(-reach, reach + 1) ** 2)
    weights /= weights.sum()
    rows = np.pad(cells_hw.astype(np.float64), ((reach, reach), (0, 0)), mode="edge")
    height = len(cells_hw)
    out = weights[reach] * rows[reach : reach + height]
    for start in range(reach):
        mirrored = 2 * reach - start
        out += weights[start] * (rows[start : start + height] + rows[mirrored : mirrored + height])
    blurred: Cells = out.astype(np.float32)
    return blurred


class HeatMaps:
    """The protocols' rule: heat maps of some clips, each resized once for all protocols with the same resize.

    Args:
        maps: name -> cells [h, w] of each clip: the same maps of the same sizes. `detr` is absent if no query was
            confident.
        shipped_resize: the card's resize, for `shipped` under every protocol.
        device: computes the heat maps.
    """

    def __init__(
        self,
        maps: Sequence[Mapping[str, Cells]],
        shipped_resize: str = Protocol.resize,
        device: torch.device | str = "cpu",
    ) -> None:
        self._count, self._shipped_resize, self._device = len(maps), shipped_resize, device
        stacks = {name: np.stack([of_clip[name] for of_clip in maps]) for name in maps[0]}
        self.maps = {name: torch.from_numpy(cells).to(device) for name, cells in stacks.items()}
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def heat(self, weights: Mapping[str, float], protocol: Protocol) -> Tensor:
        """[B, side, side] heat maps of one map, or of the weighted sum of several.

        Raises:
            KeyError: there is no such map.
        """
        if len(weights) > 1 and protocol.fusion == "fixed" and set(weights) <= set(_RANGES):
            return min_max(self.in_fixed_range(weights, protocol), protocol.flat)
        maps = [self._single(name, protocol) for name in weights]
        return maps[0] if len(maps) == 1 else fuse(maps, list(weights.values()), protocol.flat)

    def in_fixed_range(self, weights: Mapping[str, float], protocol: Protocol) -> Tensor:
        """[B, side, side] weighted mean of maps in ranges that all clips share: (cosine + 1) / 2, activation / 2.5.

        Source: SLAVC `test.py`.
        """
        total = torch.zeros(self._count, protocol.side, protocol.side, device=self._device)
        for name, weight in weights.items():
            low, span = _RANGES[name]
            scaled = (self.maps[name] - low) / span
            total += weight / sum(weights.values()) * resize(scaled, (protocol.side,) * 2, protocol.resize)
        return total

    def _single(self, name: str, protocol: Protocol) -> Tensor:
        size = (protocol.side, protocol.side)
        if name == _DETR and name not in self.maps:
            fill = 0.0 if protocol.no_query == "zeros" else float("nan")
            return torch.full((self._count, *size), fill, device=self._device)
        how = self._shipped_resize if name == SHIPPED else protocol.resize
        key = (name, protocol.side, how, protocol.flat)
        if key not in self._cache:
            self._cache[key] = heat_maps(self.maps[name], size, how, protocol.flat)
        return self._cache[key]


def map_weights(protocol: Protocol, names: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Row of a score table -> weights of its maps; `fused` and `fused-detr` have those of the protocol."""
    mixed = {"fused": protocol.fused, "fused-detr": protocol.fused_detr}
    return {name: mixed.get(name, {name: 1.0}) for name in names}
