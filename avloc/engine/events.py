"""Models that tell events, ready to tell them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avloc.annotations.ave import AVE_CLASSES
from avloc.checkpoint import ModelFile, put_weights
from avloc.engine.core import pick_device
from avloc.errors import WeightsError
from avloc.methods import build_events
from avloc.methods.ave import AVE, Told
from avloc.methods.ave_match import AveMatch, distance, pool
from avloc.methods.events import Features
from avloc.store.events import BACKGROUND


def told_names(model: ModelFile) -> tuple[str, ...]:
    """Names of what a model of AVE tells, background last. A published file has AVE's own.

    Raises:
        WeightsError: its card has other than one name for each.
    """
    count, said = model.config.own["classes"], model.card.get("classes")
    if said is None and count == len(AVE_CLASSES):
        said = list(AVE_CLASSES)
    if not isinstance(said, list) or len(said) != count or not all(isinstance(name, str) for name in said):
        raise WeightsError(f"{model.path} tells {count} events, but its card does not name as many")
    return (*said, BACKGROUND)


class EventEngine:
    """One such model on one device, in float32: the networks are small.

    Raises:
        UsageError: the model makes maps, or there is no such device.
        WeightsError: its tensors do not fit its configuration.
    """

    def __init__(self, model: ModelFile, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.path = model.path
        network = build_events(model.config)
        put_weights(network, model)
        self.network: Any = network.to(self.device).eval()

    @torch.inference_mode()
    def tell(self, visual: Tensor, audio: Tensor) -> Told:
        """What happens in each second, by a model of AVE.

        Args:
            visual: [B, T, 7, 7, 512] features of VGG19.
            audio: [B, T, 128] features of VGGish.

        Raises:
            WeightsError: what it says is not finite.
        """
        assert isinstance(self.network, AVE)
        told = self.network.tell(visual.to(self.device), audio.to(self.device))
        self._check_finite(told.scores, told.attention)
        return told

    @torch.inference_mode()
    def distances(self, features: Features) -> Tensor:
        """[B, T, T] from each second of the picture to each of the sound, by a model of cross-modal matching.

        Raises:
            WeightsError: they are not finite.
        """
        assert isinstance(self.network, AveMatch)
        seen = self.network.embed_visual(pool(features.visual.to(self.device)))
        heard = self.network.embed_audio(features.audio.to(self.device))
        found = distance(seen[:, :, None], heard[:, None])
        self._check_finite(found)
        return found

    def _check_finite(self, *said: Tensor) -> None:
        if not all(values.isfinite().all() for values in said):
            raise WeightsError(f"{self.path}: what the model says is not finite; its weights are damaged")
