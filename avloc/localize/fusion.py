"""Similarity maps fused with maps of where there is something to look at, cell by cell.

The names of maps: `av` is the similarity map, `object` an ImageNet trunk's activation, `detr` DETR's attention, `own`
the activation of the model's own vision trunk, which needs no second one, `centre` the nearness to the picture's
middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.config import from_dict
from avloc.errors import UsageError, WeightsError
from avloc.progress import Listener, silent
from avloc.protocols import RESIZES, Protocol

if TYPE_CHECKING:
    import torch

NONE = "none"
DETR = "detr"
OWN = "own"
CENTRE = "centre"
RESIZE_KEY = "resize"
"""Where a model file's card says how cells lie in the picture, if not as protocol `avloc` has it."""
CARD_KEY = "fusion"
"""Where a model file says how its own prior is weighed."""
_SMOOTHEST = 5.0
PriorMap = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""A frame [H, W, 3] to its map [h, w]."""


def fused_cells(
    maps: Mapping[str, NDArray[np.float32]], weights: Mapping[str, float], how: str = Protocol.resize
) -> NDArray[np.float32]:
    """Weighted sum of maps, each brought to the finest grid among them and then to [0, 1]; a flat map counts as zeros.

    Args:
        maps: name -> [h, w], on grids of any size.
        weights: name -> weight, for every map.
        how: cells become those of a finer grid, as `avloc.heatmap.resize` says.

    Returns:
        [h, w] whose resized min-max form is the heat map. A single map is its own result.
    """
    if len(maps) == 1:
        return next(iter(maps.values()))
    import torch

    from avloc.heatmap import heat_maps

    rows, columns = zip(*(cells.shape for cells in maps.values()), strict=True)
    grid = (max(rows), max(columns))
    terms = [weights[name] * heat_maps(torch.from_numpy(cells)[None], grid, how)[0] for name, cells in maps.items()]
    fused: NDArray[np.float32] = torch.stack(terms).sum(0).numpy()
    return fused


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How much the similarity map weighs beside the model's own prior, and how smooth both are.

    The similarity map weighs the more, the surer the sound is of a place.
    """

    least: float = 0.6
    """Weight of the similarity map where its peak cosine is `unsure` or lower; the prior has the rest."""
    most: float = 0.6
    """The same where it is `sure` or higher; linear in between."""
    unsure: float = 0.0
    sure: float = 1.0
    smooth: float = 0.0
    """Standard deviation of the Gaussian that both maps go through first, in cells; 0 leaves them as they are."""
    centre: float = 0.0
    """Weight of a map that falls from the middle of the picture to its corners; the others share the rest."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise UsageError(f"fusion: {self.least} to {self.most} is impossible; valid: 0 to 1, rising")
        if not -1 <= self.unsure < self.sure <= 1:
            raise UsageError(f"fusion: cosines {self.unsure} to {self.sure} are impossible; valid: -1 to 1, rising")
        if not 0 <= self.smooth <= _SMOOTHEST:
            raise UsageError(f"fusion: smooth {self.smooth} is impossible; valid: 0 to {_SMOOTHEST} cells")
        if not 0 <= self.centre <= 1:
            raise UsageError(f"fusion: centre {self.centre} is impossible; valid: 0 to 1")

    def weights(self, similarity: NDArray[np.float32]) -> dict[str, float]:
        """What `av`, `own` and `centre` weigh for cosines [h, w]; together 1."""
        sureness = min(1.0, max(0.0, (float(similarity.max()) - self.unsure) / (self.sure - self.unsure)))
        share = self.least + sureness * (self.most - self.least)
        rest = 1 - self.centre
        return {"av": rest * share, OWN: rest * (1 - share), CENTRE: self.centre}

    def smoothed(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """[h, w] cells after the Gaussian; outside of the map its border goes on."""
        if not self.smooth:
            return cells
        return np.ascontiguousarray(_blurred(_blurred(cells, self.smooth).T, self.smooth).T)

    @property
    def label(self) -> str:
        """For the protocol."""
        share = f"{self.least:g}" if self.least == self.most else f"{self.least:g}-{self.most:g}"
        label = f"{share} av + rest {OWN}"
        if self.centre:
            label = f"{1 - self.centre:g} ({label}) + {self.centre:g} {CENTRE}"
        return label + (f", smoothed by {self.smooth:g} cells" if self.smooth else "")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Which sound-blind maps stand beside the similarity map, and what each weighs."""

    priors: Mapping[str, PriorMap] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=lambda: {"av": 1.0})
    label: str = ""
    """For the protocol; empty where nothing is fused."""
    own: Trust | None = None
    """Fuses the model's own activation in, by weights that follow the sound; then there are no `priors`."""
    resize: str = Protocol.resize
    """How cells become pixels, and cells of a finer grid; one of `avloc.protocols.RESIZES`."""

    def prior_maps(self, frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """What the priors see in a frame [H, W, 3], whatever is heard."""
        return {name: prior(frame) for name, prior in self.priors.items()}

    def cells(
        self, similarity: NDArray[np.float32], prior_maps: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """[h, w] cells of the heat map out of cosines [h, w] and the frame's maps, `own` among them if it is in use."""
        maps = {"av": similarity, **prior_maps}
        if self.own is None:
            return fused_cells(maps, self.weights, self.resize)
        smooth = {name: self.own.smoothed(cells) for name, cells in maps.items()}
        maps, weights = {**smooth, CENTRE: nearness(similarity.shape)}, self.own.weights(similarity)
        return fused_cells(maps, weights, self.resize)


def _blurred(cells: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Rows [h, w] blurred into each other by a Gaussian that is cut at four deviations, as SciPy's is, to the last bit.

    SciPy itself takes longer to import than a picture takes to be seen and heard.
    """
    reach = int(4 * deviation + 0.5)
    weights = np.exp(-0.5 / deviation**2 * np.arange(-reach, reach + 1) ** 2)
    weights /= weights.sum()
    rows = np.pad(cells.astype(np.float64), ((reach, reach), (0, 0)), mode="edge")
    height = len(cells)
    out = weights[reach] * rows[reach : reach + height]
    for start in range(reach):
        mirrored = 2 * reach - start
        out += weights[start] * (rows[start : start + height] + rows[mirrored : mirrored + height])
    blurred: NDArray[np.float32] = out.astype(np.float32)
    return blurred


def nearness(grid: tuple[int, ...]) -> NDArray[np.float32]:
    """How near cells [h, w] are to the middle of the picture, in fractions of its sides: 1 there, 0 in the corners."""
    down, across = (np.linspace(-1, 1, size, dtype=np.float32) if size > 1 else np.zeros(1) for size in grid)
    near: NDArray[np.float32] = (1 - np.hypot(down[:, None], across) / np.sqrt(2)).astype(np.float32)
    return near


def load_fusion(
    names: str,
    weights: Mapping[str, float] | None,
    card: Mapping[str, Any],
    weights_dir: Path | None,
    device: torch.device,
    listener: Listener = silent,
) -> Fusion:
    """The priors by name and their weights.

    Args:
        names: `none`, `own`, `detr`, a network of `avloc.backbone_names.CONVNETS`, or a trunk and `detr` with a comma;
            empty is the model's own choice: `own` if its card says how it is weighed, else `none`.
        weights: name of a map -> weight; by default those of the card for `own`, of avloc's protocol for others.
        card: of the model file.
        weights_dir: folder searched first for published weights.
        device: where the priors run.
        listener: hears about a download.

    Raises:
        UsageError: no such prior, or weights that do not go with the maps.
        WeightsError: a prior's weights are absent or damaged, or the card's fusion or resize is none.
    """
    if names == OWN or (not names and CARD_KEY in card):
        return _own_fusion(weights, card)
    asked = [name for name in names.split(",") if name and name != NONE]
    kinds = {DETR if name == DETR else "object": name for name in asked}
    if len(kinds) != len(asked):
        raise UsageError(
            f"--object-prior {names}: valid are {OWN}, {NONE}, one trunk, {DETR}, or the last two with a comma"
        )
    chosen = _checked({"av", *kinds}, dict(weights) if weights else _default_weights(set(kinds)))
    priors = {kind: _load_prior(name, weights_dir, device, listener) for kind, name in kinds.items()}
    label = _label(kinds, chosen) if kinds else ""
    return Fusion(priors=priors, weights=chosen, label=label, resize=_resize_of(card))


def _own_fusion(weights: Mapping[str, float] | None, card: Mapping[str, Any]) -> Fusion:
    entry = card.get(CARD_KEY, {})
    try:
        trust = from_dict(Trust, entry, f"{CARD_KEY}.")
    except (UsageError, AttributeError, TypeError) as error:
        raise WeightsError(f"the model's card has an unusable fusion: {error}") from error
    if weights:
        shares = _checked({"av", OWN}, dict(weights))
        share = shares["av"] / sum(shares.values())
        trust = replace(trust, least=share, most=share, centre=0.0)
    return Fusion(own=trust, label=trust.label, resize=_resize_of(card))


def _resize_of(card: Mapping[str, Any]) -> str:
    how = card.get(RESIZE_KEY, Protocol().resize)
    if how not in RESIZES:
        raise WeightsError(f"the model's card has an unusable {RESIZE_KEY}: {how!r}; valid: {', '.join(RESIZES)}")
    return str(how)


def parse_weights(text: str) -> dict[str, float]:
    """`av=0.6,object=0.4` as a table.

    Raises:
        UsageError: not of this form.
    """
    out: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            out[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"--weights {text}: {part!r} is not name=number; valid: as av=0.6,object=0.4") from None
    return out


def _default_weights(kinds: set[str]) -> dict[str, float]:
    known = (Protocol().fused, Protocol().fused_detr)
    fitting = (weights for weights in known if set(weights) == {"av", *kinds})
    return dict(next(fitting, dict.fromkeys(["av", *sorted(kinds)], 1 / (1 + len(kinds)))))


def _checked(names: set[str], weights: dict[str, float]) -> dict[str, float]:
    if set(weights) != names:
        raise UsageError(f"--weights names {', '.join(sorted(weights))}; the maps are {', '.join(sorted(names))}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or sum(weights.values()) <= 0:
        raise UsageError("--weights are impossible; valid: numbers of 0 or more, not all 0")
    return weights


def _label(kinds: Mapping[str, str], weights: Mapping[str, float]) -> str:
    names = {"av": "av", **kinds}
    return " + ".join(f"{weight:g} {names[name]}" for name, weight in weights.items())


def _load_prior(name: str, weights_dir: Path | None, device: torch.device, listener: Listener) -> PriorMap:
    import torch

    from avloc.media import square
    from avloc.networks.detr import stretched
    from avloc.priors import DetrPrior, ObjectPrior

    def batched(small: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(small.copy()).permute(2, 0, 1)[None]

    if name == DETR:
        detr = DetrPrior(weights_dir, device, listener)

        def attention(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                found = detr.maps(batched(stretched(frame, detr.side)))[0]
            return np.zeros((1, 1), np.float32) if found is None else found.cpu().numpy()

        return attention
    trunk = ObjectPrior(name, weights_dir, device, listener)

    def activation(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = trunk.maps(batched(square(frame, trunk.side)))[0].cpu().numpy()
        return found

    return activation
