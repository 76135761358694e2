"""What SSPL and SACL share: VGGish with two layers for audio, 14 x 14 cells of 512 channels, two views."""

from __future__ import annotations

from torch import Tensor, nn

from avloc.config import ModelConfig
from avloc.errors import UsageError
from avloc.methods.base import Method
from avloc.networks.vggish import VGGishWithMLP, log_mel_patches, normalise_span
from avloc.registry import METHOD_SPECS

_FLOOR = 1e-10
_SIDE = 224
"""Pixels of a frame: 14 x 14 cells, the size of SSPL's module and SACL's masks."""


class VGGishMethod(Method):
    """A method whose audio network `sound` is VGGish with two layers.

    `audio` of its `Embeddings` is a packed `SoundVectors`, so that the engine handles one tensor for every method.

    Raises:
        UsageError: the configuration names other networks or sizes than the published ones.
    """

    time_axes = (1, 2)
    views = 2
    frame: nn.Module
    sound: VGGishWithMLP

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        for name, value in METHOD_SPECS[config.method].settings["model"].items():
            if getattr(config, name) != value:
                given = f"model.{name} = {getattr(config, name)!r}"
                raise UsageError(f"{given} is impossible for {config.method}; valid: {value!r}")
        if config.frame != _SIDE or config.seconds < 1:
            given = f"model.frame = {config.frame}, model.seconds = {config.seconds:g}"
            raise UsageError(f"{given} is impossible for {config.method}; valid: {_SIDE}, and 1 or more")

    def audio_input(self, sound_BN: Tensor, rate: int) -> Tensor:
        """Log-mel patches [B, P, 96, 64] of the waveforms, each scaled to [-1, 1] by its minimum and maximum."""
        return log_mel_patches(normalise_span(sound_BN), rate)

    def encode_audio(self, spectrograms: Tensor) -> Tensor:
        """A packed `SoundVectors`, [B, 512 + 128]."""
        return self.sound.vectors(spectrograms).packed()

    def backbones(self) -> list[nn.Module]:
        """The image network, and VGGish without the two layers."""
        return [self.frame, self.sound.features, self.sound.embeddings]

    def pretrained_vggish(self) -> tuple[nn.Module, str]:
        """VGGish without the two layers, and its name."""
        return nn.ModuleDict({"features": self.sound.features, "embeddings": self.sound.embeddings}), "vggish"


def attention(map_BHW: Tensor) -> Tensor:
    """Min-max normalised maps; a constant map becomes 0."""
    # Not `heatmap.min_max`: the floor changes the values of maps of small range, and keeps gradients finite.
    least = map_BHW.amin((1, 2), keepdim=True)
    return (map_BHW - least) / (map_BHW.amax((1, 2), keepdim=True) - least + _FLOOR)
