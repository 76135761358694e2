"""A model's card, `--object-prior` and `--map-weights` to a `Fusion`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avloc.config import from_dict
from avloc.engine.fusion import DETR, OWN, AdaptiveWeights, Cells, Frame, Fusion
from avloc.errors import UsageError, WeightsError
from avloc.media.pictures import square
from avloc.networks.detr import stretched
from avloc.priors import DetrPrior, ObjectPrior
from avloc.progress import Listener, silent
from avloc.protocols import RESIZES, Protocol

NONE = "none"
CARD_KEY = "fusion"
"""Entry of a model's card with the fields of `AdaptiveWeights`."""
RESIZE_KEY = "resize"
"""Entry of a model's card that says how cells become pixels, if not as in protocol `avloc`."""


def card_fusion(card: Mapping[str, Any]) -> Fusion:
    """The fusion that a model's card asks for; the similarity map alone if it has none.

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
    """Load priors by name.

    Args:
        names: `own`, `none`, a trunk of `avloc.backbone_names.CONVNETS`, `detr`, or the last two with a comma; empty is
            what the card asks for.
        weights: name of a map -> weight; default: those of the card for `own`, of protocol `avloc` for others.
        card: of the model file.
        weights_dir: folder searched first for pretrained weights.
        device: of the priors.
        listener: receives notices of downloads.

    Raises:
        UsageError: no such prior, or weights that do not match the maps.
        WeightsError: a prior's weights are absent or damaged, or the card's fusion or resize is not valid.
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
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or sum(weights.values()) <= 0:
        raise UsageError("--map-weights are impossible; valid: numbers of 0 or more, not all 0")
    return weights


def _load_prior(
    name: str, weights_dir: Path | None, device: torch.device, listener: Listener
) -> Callable[[Frame], Cells]:
    is_detr = name == DETR
    prior = DetrPrior(weights_dir, device, listener) if is_detr else ObjectPrior(name, weights_dir, device, listener)

    def cells(frame: Frame) -> Cells:
        small = (stretched if is_detr else square)(frame, prior.side)
        with torch.inference_mode():
            found = prior.maps(torch.from_numpy(small.copy()).permute(2, 0, 1)[None])[0]
        return np.zeros((1, 1), np.float32) if found is None else found.cpu().numpy()

    return cells
