"""Linear projections of a run's backbones into the common space: named dimensions, the concepts, and unnamed ones.

Shape letters: n pictures, m sounds, D common space.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.networks import yamnet
from avloc.networks.concepts import CONCEPTS, DIM, IMAGE_BIAS, concept_projections
from tests.recipe.features import AUDIO_WIDTH, IMAGE_WIDTH

IMAGE_SCALE = 3.0
"""Outputs of the image backbone are divided by it; features are in [0, 6]."""
LEAST_SD = (0.05, 0.25)
"""Added to the deviations of audio features and class scores, many of which are almost always 0."""
AUDIO_START = 4.0
"""The start of sounds is divided by it, that of images by `IMAGE_BIAS`, so that both are near 1."""
UNNAMED_SHARE = 0.5
"""The unnamed dimensions start with this share of the usual random weights."""
UNNAMED_NORM = 0.08
"""Mean norm of the unnamed dimensions at the start from a run, whose own have a mean norm of 1."""
_AT_ONCE = 64


class Projections(nn.Module):
    """Linear maps of both backbones' outputs into the common space.

    Args:
        unnamed: dimensions beside those of the concepts.
        sounds: [S, 1545] outputs of the audio backbone, from which its inputs are standardised.
    """

    audio_mean: Tensor
    audio_sd: Tensor

    def __init__(self, unnamed: int, sounds: Tensor) -> None:
        super().__init__()
        self.unnamed = unnamed
        least = torch.tensor(LEAST_SD).repeat_interleave(torch.tensor([yamnet.WIDTH, yamnet.CLASSES]))
        self.register_buffer("audio_mean", sounds.float().mean(0))
        self.register_buffer("audio_sd", sounds.float().std(0) + least)
        self.image, self.audio = nn.Linear(IMAGE_WIDTH, DIM + unnamed), nn.Linear(AUDIO_WIDTH, DIM + unnamed)
        image, image_bias, audio, audio_bias = concept_projections()
        with torch.no_grad():
            for layer in (self.image, self.audio):
                layer.weight[DIM:] *= UNNAMED_SHARE
            self.image.weight[:DIM] = image.flatten(1) * IMAGE_SCALE / IMAGE_BIAS
            self.image.bias[:DIM] = image_bias / IMAGE_BIAS
            self.audio.weight[:DIM] = audio * self.audio_sd / AUDIO_START
            self.audio.bias[:DIM] = (audio_bias + audio @ self.audio_mean) / AUDIO_START

    @torch.no_grad()
    def start_at(self, run: Mapping[str, Tensor], pictures: Tensor, sounds: Tensor) -> None:
        """Take the named dimensions of a run.

        Args:
            run: its projections (`folded`), of the concepts alone.
            pictures: [n, cells, 2280] outputs of the image backbone, for the scale.
            sounds: [m, 1545] outputs of the audio backbone, for the scale.
        """
        self.take(run)
        inputs = self.image_inputs(pictures.float()), self.audio_inputs(sounds.float())
        for layer, values in zip((self.image, self.audio), inputs, strict=True):
            vectors = layer(values)
            for rows, norm in ((slice(DIM), 1.0), (slice(DIM, None), UNNAMED_NORM)):
                scale = norm / vectors[..., rows].norm(dim=-1).mean()
                layer.weight[rows] *= scale
                layer.bias[rows] *= scale

    @torch.no_grad()
    def take(self, state: Mapping[str, Tensor]) -> None:
        """Take the first dimensions, or all, from projections as in `folded`."""
        image, audio = state["img_proj.weight"].float().flatten(1), state["aud_proj.weight"].float()
        rows = slice(len(audio))
        self.image.weight[rows] = image * IMAGE_SCALE
        self.image.bias[rows] = state["img_proj.bias"].float()
        self.audio.weight[rows] = audio * self.audio_sd
        self.audio.bias[rows] = state["aud_proj.bias"].float() + audio @ self.audio_mean

    @torch.no_grad()
    def average_with(self, other: Projections, share: float) -> None:
        """Move every weight to its weighted mean with that of other projections, whose weight is `share`."""
        for own, their in zip(self.parameters(), other.parameters(), strict=True):
            own.lerp_(their, share)

    def image_inputs(self, pictures: Tensor) -> Tensor:
        """Scaled outputs of the image backbone, [n, cells, 2280]."""
        return pictures / IMAGE_SCALE

    def audio_inputs(self, sounds: Tensor) -> Tensor:
        """Standardised outputs of the audio backbone, [m, 1545]."""
        return (sounds - self.audio_mean) / self.audio_sd

    @torch.inference_mode()
    def peaks(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """Largest cosine of any cell of each picture with each sound.

        Args:
            pictures: [n, cells, 2280] outputs of the image backbone, of any precision.
            sounds: [m, 1545] outputs of the audio backbone.

        Returns:
            [n, m] float32.
        """
        audio = self.sound_vectors(sounds)
        found = [self.cosines(some, audio).amax(2) for some in pictures.split(_AT_ONCE)]
        return torch.cat(found)

    @torch.inference_mode()
    def cosines(self, pictures: Tensor, audio: Tensor) -> Tensor:
        """Cosine [n, m, cells] of every cell of pictures [n, cells, 2280] with unit vectors [m, D]."""
        return torch.einsum("ncd,md->nmc", self.cell_vectors(pictures), audio)

    @torch.inference_mode()
    def cell_vectors(self, pictures: Tensor) -> Tensor:
        """Unit vectors [n, cells, D] of pictures [n, cells, 2280] of any precision."""
        return F.normalize(self.image(self.image_inputs(pictures.float())), dim=2)

    @torch.inference_mode()
    def sound_vectors(self, sounds: Tensor) -> Tensor:
        """Unit vectors [m, D] of sounds [m, 1545] of any precision."""
        return F.normalize(self.audio(self.audio_inputs(sounds.float())), dim=1)

    def usual_peaks(self, pictures: Tensor) -> list[float]:
        """Root mean square over pictures [n, cells, 2280] of the largest value of each concept, of unit vectors."""
        concepts = torch.eye(DIM + self.unnamed)[: len(CONCEPTS)]
        peaks = torch.cat([self.cosines(some, concepts).amax(2) for some in pictures.split(_AT_ONCE)])
        return [round(float(value), 4) for value in peaks.clamp(min=0).square().mean(0).sqrt()]

    def folded(self) -> dict[str, Tensor]:
        """Weights and biases of a model's projections, which take the backbones' outputs as they are."""
        image, audio = self.image.weight.detach() / IMAGE_SCALE, self.audio.weight.detach() / self.audio_sd
        return {
            "img_proj.weight": image[:, :, None, None],
            "img_proj.bias": self.image.bias.detach(),
            "aud_proj.weight": audio,
            "aud_proj.bias": self.audio.bias.detach() - audio @ self.audio_mean,
        }
