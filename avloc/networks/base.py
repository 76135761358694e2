"""Base class and output of backbones, and what networks share.

Shape letters: B batch, C channels, K classes, H W pixels or frequency and time bins, h w cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avloc.errors import UsageError, WeightsError
from avloc.networks.backbones import BackboneName


class BackboneOutput(NamedTuple):
    """Outputs of a backbone.

    Attributes:
        features: last feature map, [B, C, h, w].
        prior_features: features for the object prior, [B, C, h, w]: those of the frozen pretrained head if the backbone
            has one, else `features`.
        class_scores: scores of the pretrained classifier, [B, K, h, w], not negative; None without one.
    """

    features: Tensor
    prior_features: Tensor
    class_scores: Tensor | None = None

    def concatenated(self) -> Tensor:
        """Input of a projection: features, then class scores, [B, C + K, h, w]."""
        return self.features if self.class_scores is None else torch.cat((self.features, self.class_scores), 1)


class Backbone(nn.Sequential):
    """A network without its pooling and classifier: [B, channels, H, W] -> `BackboneOutput`.

    `layers` are its top-level modules, under the key names of the published weights.
    """

    def __init__(self, name: BackboneName, channels: int, layers: Mapping[str, nn.Module]) -> None:
        super().__init__(OrderedDict(layers))
        self.name, self.channels = name, channels

    def forward(self, inputs_BCHW: Tensor) -> BackboneOutput:
        """Run the layers."""
        features = inputs_BCHW
        for layer in self:
            features = layer(features)
        return BackboneOutput(features, prior_features=features)

    def width(self) -> int:
        """Channels of `BackboneOutput.concatenated`, from a small forward pass in evaluation mode."""
        was_training = self.training
        with torch.no_grad():
            out: BackboneOutput = self.eval()(torch.zeros(1, self.channels, 64, 64))
        self.train(was_training)
        return out.concatenated().shape[1]

    def check_frame(self, side: int) -> None:
        """Raise UsageError if the backbone cannot take square frames of so many pixels."""

    def trainable(self, part: str) -> bool:  # noqa: ARG002
        """Whether the submodule of that name can be trained while the rest is frozen."""
        return True

    def keep_resolution(self) -> None:
        """Set the strides of a ResNet's `layer4` to 1: cells of 16 pixels, 14 x 14 of them for 224 pixels.

        Raises:
            UsageError: the network has no `layer4`.
        """
        layer = getattr(self, "layer4", None)
        if not isinstance(layer, nn.Module):
            raise UsageError(f"{self.name.network} cannot keep its resolution; valid: a whole ResNet")
        for part in layer.modules():
            if isinstance(part, nn.Conv2d):
                part.stride = (1, 1)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: `ceil(input / stride)` output cells.

    An odd total padding has the larger part at the end, unlike in PyTorch. No dilation.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""
        size, sides = features_BCHW.shape[-2:], zip(self.kernel_size, self.stride, strict=True)
        down, across = (
            max((-(-length // stride) - 1) * stride + kernel - length, 0)
            for length, (kernel, stride) in zip(size, sides, strict=True)
        )
        if down % 2 or across % 2:
            pads = (across // 2, across - across // 2, down // 2, down - down // 2)
            features_BCHW, down, across = F.pad(features_BCHW, pads), 0, 0
        half = (down // 2, across // 2)
        return F.conv2d(features_BCHW, self.weight, self.bias, self.stride, half, groups=self.groups)


def load_weights(module: nn.Module, tensors: Mapping[str, Any], path: Path, name: str) -> None:
    """Load a state dict from the file of a published network.

    Raises:
        WeightsError: `path` does not hold the weights of `name`.
    """
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path} does not hold the weights of {name}: {error}") from error


@contextmanager
def _set(settings: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes of torch's backends, which are of the whole process, and restore them."""
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


_TF32: tuple[Any, ...] = (
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
    torch.backends.cuda.matmul,
)
"""What may round float32 to TF32 on CUDA. By default torch's matrix products do not, and cuDNN does."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Context without TF32."""
    with _set([(part, "fp32_precision", "ieee") for part in _TF32]):
        yield


def allows_tf32(device: torch.device) -> bool:
    """Whether something on the device may round float32 to TF32."""
    return device.type == "cuda" and any(part.fp32_precision == "tf32" for part in _TF32)


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Context in which cuDNN times its kernels for each new shape and uses the fastest: for many steps of one shape."""
    with _set([(torch.backends.cudnn, "benchmark", True)]):
        yield


@contextmanager
def deterministic_inference() -> Iterator[None]:
    """Inference mode without TF32, with deterministic cuDNN kernels and no benchmarking."""
    cudnn = torch.backends.cudnn
    with torch.inference_mode(), full_float32(), _set([(cudnn, "benchmark", False), (cudnn, "deterministic", True)]):
        yield


def mean_activation(features_BCHW: Tensor) -> Tensor:
    """Mean over channels of the absolute activation, [B, h, w] float32, detached (EZ-VSL's object prior)."""
    return features_BCHW.detach().float().abs().mean(1)


def fold_batch_norms(module: nn.Module, kind: type[nn.Module] = nn.BatchNorm2d) -> None:
    """Fold every batch normalisation of a `kind` into the convolution before it, in place; for evaluation only.

    Equal up to rounding. Relies on children being registered in the order of their use.
    """
    for part in module.children():
        fold_batch_norms(part, kind)
    for (name, conv), (next_name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, kind):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type]
            setattr(module, next_name, nn.Identity())


def init_from_scratch(module: nn.Module) -> None:
    """The reference's initial weights of everything that is not pretrained (EZ-VSL and AVC `model.py`)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.01)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
            nn.init.zeros_(part.bias)
