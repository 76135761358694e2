"""Export of a model to ONNX: both encoders and their similarity as one graph."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avloc import __version__
from avloc.errors import UsageError
from avloc.files import atomic_path
from avloc.methods import Embeddings, Method
from avloc.transforms import normalise_frames

if TYPE_CHECKING:
    from avloc.localize.model import Model

OPSET = 18
"""Version of ONNX's operators."""
_METHODS = ("avc", "ezvsl", "lvs")
"""The graph of SACL takes one batch size only; that of SSPL has the same audio network."""


class _Graph(nn.Module):
    """Frames [B, 3, side, side] uint8 and waveforms [B, samples] -> similarity maps [B, h, w]."""

    def __init__(self, method: Method, rate: int) -> None:
        super().__init__()
        self.method, self.rate = method, rate

    def forward(self, frames: Tensor, sound: Tensor) -> Tensor:
        image, _ = self.method.encode_image(normalise_frames(frames))
        audio = self.method.encode_audio(self.method.audio_input(sound, self.rate))
        return self.method.similarity(Embeddings(image, audio))


def export(model: Model, path: str | Path, *, rate: int | None = None) -> Path:
    """Write a model as an ONNX file (opset 18) that needs neither avloc nor torch; requires `avloc[onnx]`.

    The graph has two inputs, `frames` [batch, 3, side, side] uint8 RGB and `sound` [batch, seconds * rate] float32 in
    [-1, 1], and one output, `cells` [batch, h, w] float32: the cosine of every cell with its own sound, before resizing
    and before any fusion with object priors. The spectrogram and the normalisation of frames are part of the graph. The
    file's metadata has `model`, `model_sha256`, `licence`, `method`, `rate`, `seconds`, `side` and `avloc` (version).

    Args:
        model: from `avloc.load`, in fp32.
        path: the file to write; an existing one is replaced.
        rate: sample rate of the sound in Hz; only for a model that takes each sound's own rate.

    Returns:
        The path.

    Raises:
        UsageError: `avloc[onnx]` is not installed, the model is in bf16 or of another method than AVC, EZ-VSL and LVS,
            or a rate is missing or does not apply.
    """
    if find_spec("onnxscript") is None:
        raise UsageError("export needs onnxscript, which is not installed", hint="Install it with: avloc[onnx].")
    engine = model._engine
    if engine.precision != "fp32":
        raise UsageError(f"a model in {engine.precision} cannot be exported; valid: a model loaded in fp32")
    if engine.config.method not in _METHODS:
        raise UsageError(f"{engine.config.method} models cannot be exported; valid: {', '.join(_METHODS)}")
    if model.rate and rate not in (None, model.rate):
        raise UsageError(f"rate={rate} does not apply to a model of {model.rate} Hz; valid: {model.rate}")
    if not (rate := rate or model.rate) or rate < 0:
        raise UsageError("the model takes each sound's own rate; valid: export(..., rate=...), such as 22050")
    side, device, path = engine.config.frame, engine.device, Path(path)
    frames = torch.zeros((2, 3, side, side), dtype=torch.uint8, device=device)
    sound = torch.zeros((2, int(model.seconds * rate)), device=device)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*axis name: batch", category=UserWarning)
        program = torch.onnx.export(
            _Graph(engine.model, rate).eval(),
            (frames, sound),
            input_names=["frames", "sound"],
            output_names=["cells"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )
    assert program is not None  # None is for the exporter of dynamo=False
    facts = {"model": model.name, "method": engine.config.method, "rate": rate, "seconds": model.seconds, "side": side}
    facts |= {"model_sha256": model.sha256, "licence": model.card.get("licence", "")}
    program.model.metadata_props.update({key: str(value) for key, value in {**facts, "avloc": __version__}.items()})
    with atomic_path(path) as part:
        program.save(part, external_data=False)
    return path
