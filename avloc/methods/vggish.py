"""What SSPL and SACL have alike: VGGish and two layers that hear, 14 x 14 cells of 512 channels, two views."""

from __future__ import annotations

from torch import Tensor, nn

from avloc.config import ModelConfig
from avloc.errors import UsageError
from avloc.methods.base import Method
from avloc.networks.vggish import LED_WIDTH, VGGishWithMLP, log_mel_patches, normalise_span
from avloc.registry import METHOD_SPECS

_FLOOR = 1e-10
_SIDE = 224
"""Pixels of a frame: 14 x 14 cells, which is what SSPL's module and SACL's masks take."""


class HeardByVGGish(Method):
    """A method that hears with `sound`.

    `audio` of its `Embeddings` holds the unit vector of 512 that cells are compared with, and behind it the unit
    embedding of 128.
    """

    time_axes = (1, 2)
    views = 2
    vision_features = LED_WIDTH
    sound: VGGishWithMLP

    def hear(self, sound_BN: Tensor, rate: int) -> Tensor:
        """Log-mel patches [B, P, 96, 64] of the waveforms, each normalised by its own span."""
        return log_mel_patches(normalise_span(sound_BN), rate)

    def encode_audio(self, heard: Tensor) -> Tensor:
        """[B, 512 + 128]: see the class."""
        return self.sound.vectors(heard)

    def hearing(self) -> tuple[nn.Module, str]:
        """VGGish alone, and the name that its published weights go by."""
        return nn.ModuleDict({"features": self.sound.features, "embeddings": self.sound.embeddings}), "vggish"


def check_sizes(config: ModelConfig) -> None:
    """Raise UsageError where a configuration asks SSPL or SACL for networks or sizes that they do not have."""
    for name, value in METHOD_SPECS[config.method].settings["model"].items():
        if getattr(config, name) != value:
            given = getattr(config, name)
            raise UsageError(f"model.{name} = {given!r} is impossible for {config.method}; valid: {value!r}")
    if config.frame != _SIDE or config.seconds < 1:
        given = f"model.frame = {config.frame}, model.seconds = {config.seconds:g}"
        raise UsageError(f"{given} is impossible for {config.method}; valid: {_SIDE}, and 1 or more")


def attention(map_BHW: Tensor) -> Tensor:
    """Maps between 0 and 1 by their own smallest and largest value."""
    least = map_BHW.amin((1, 2), keepdim=True)
    return (map_BHW - least) / (map_BHW.amax((1, 2), keepdim=True) - least + _FLOOR)
