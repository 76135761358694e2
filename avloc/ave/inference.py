"""Run trained models of event localization and matching."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avloc.ave.annotations import AVE_CLASSES
from avloc.ave.event_table import BACKGROUND
from avloc.ave.matching import AveMatch, distance, pool
from avloc.ave.networks import AVE, Features, Prediction, build_network
from avloc.checkpoint import ModelFile, put_weights
from avloc.engine.core import pick_device
from avloc.errors import WeightsError
from avloc.networks.base import full_float32


def model_classes(model: ModelFile) -> tuple[str, ...]:
    """Names of the classes of a model of AVE, background last; a published file has those of `AVE_CLASSES`.

    Raises:
        WeightsError: the card does not name every class.
    """
    count, names = model.config.own["classes"], model.card.get("classes")
    if names is None and count == len(AVE_CLASSES):
        names = list(AVE_CLASSES)
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"{model.path} predicts {count} events, but its card does not name as many")
    return (*names, BACKGROUND)


class EventPredictor:
    """A trained model on one device, in float32.

    Raises:
        UsageError: the model is a localizer, or the device does not exist.
        WeightsError: its tensors do not fit its configuration.
    """

    def __init__(self, model: ModelFile, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.path = model.path
        network = build_network(model.config)
        put_weights(network, model)
        self.network: Any = network.to(self.device).eval()

    @torch.inference_mode()
    @full_float32()
    def predict(self, visual: Tensor, audio: Tensor) -> Prediction:
        """The output of a model of AVE for `Features.visual` and `audio`.

        Raises:
            WeightsError: it is not finite.
        """
        assert isinstance(self.network, AVE)
        prediction = self.network.predict(visual.to(self.device), audio.to(self.device))
        self._check_finite(prediction.scores, prediction.attention)
        return prediction

    @torch.inference_mode()
    @full_float32()
    def distances(self, features: Features) -> Tensor:
        """Distances [B, T, T] from each second of video to each of audio, by a model of cross-modal matching.

        Raises:
            WeightsError: they are not finite.
        """
        assert isinstance(self.network, AveMatch)
        visual = self.network.visual(pool(features.visual.to(self.device)))
        audio = self.network.audio(features.audio.to(self.device))
        distances = distance(visual[:, :, None], audio[:, None])
        self._check_finite(distances)
        return distances

    def _check_finite(self, *outputs: Tensor) -> None:
        if not all(values.isfinite().all() for values in outputs):
            raise WeightsError(f"{self.path}: the output of the model is not finite; its weights are damaged")
