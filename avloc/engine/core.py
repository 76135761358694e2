"""One model on one device: encoding, similarity, training steps and prediction.

Training and prediction use the same `encode` and `similarity`. Shape letters: B batch, D common space,
N samples, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from avloc.checkpoint import ModelFile, put_weights
from avloc.config import LossWeights, ModelConfig, TrainConfig
from avloc.dataset import Batch
from avloc.distributed import ALONE, Peers, share_gradients, share_statistics
from avloc.engine.targets import supervise
from avloc.errors import UsageError
from avloc.methods import Embeddings, Method, build
from avloc.networks.base import fold_batch_norms, full_float32
from avloc.transforms import (
    crop_frames,
    crop_labels,
    crop_maps,
    draw_crops,
    int16_to_float,
    normalise_frames,
    on_device,
)


def pick_device(name: str = "auto") -> torch.device:
    """The device `cpu`, `cuda`, `cuda:N` or `mps`, as in torch; `auto` is CUDA if available, else the CPU.

    Raises:
        UsageError: no such device; the message lists those available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = device_names()
    if name not in here:
        raise UsageError(f"--device {name} is not usable here; valid: auto, {', '.join(here)}")
    device = torch.device(name)
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:  # present, but busy, full or broken
        reason = str(error).split("\n")[0]
        raise UsageError(f"--device {name} is not usable here: {reason}; valid: cpu") from error
    return device


def device_names() -> list[str]:
    """Names of the available devices: `cpu`, `cuda` for the current GPU, `cuda:N` for each, `mps`."""
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda"] if cards else []), *(f"cuda:{number}" for number in cards), *mps]


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bf16 if the hardware is faster in it, else fp32.

    CPUs are faster with AMX, and AMD's with AVX512-BF16. Intel's with AVX512-BF16 alone (AMX may be hidden from a
    virtual machine) run it at half the rate of fp32; `python -m tests.bench --row machine` measures both.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    has = torch.cpu.get_capabilities()
    vectors = has.get("avx512_bf16", False) and not str(has.get("cpu_name", "")).startswith("Intel")
    return "bf16" if has.get("amx_bf16", False) or vectors else "fp32"


class Engine:
    """One model on one device.

    `precision` is `fp32` or `bf16` (autocast of the networks; losses and cosines stay in fp32). On CUDA fp32 is full
    float32 in prediction; training steps leave it to torch, whose convolutions round to TF32 by default.

    Raises:
        UsageError: unknown method or backbone, or a size or rate that the method does not support.
    """

    def __init__(self, config: ModelConfig, device: torch.device, precision: str = "fp32") -> None:
        self.config = config
        self.device = device
        self.precision = precision
        self.model: Method = build(config).to(device).to(memory_format=torch.channels_last)
        self.peers = ALONE
        self._encoder = _Encoder(self.model)
        self._shared: nn.Module = self._encoder

    @classmethod
    def from_file(cls, model: ModelFile, device: torch.device, precision: str = "fp32") -> Engine:
        """An engine for prediction from a model file; in bf16 its weights are bf16 too, and it cannot be trained."""
        engine = cls(model.config, device, precision)
        put_weights(engine.model, model)
        engine.model.eval()
        if precision == "bf16":
            fold_batch_norms(engine.model)
            engine.model.to(torch.bfloat16)
        return engine

    def encode(self, views_B3HW: Sequence[Tensor], spectrograms: Tensor) -> Embeddings:
        """Embeddings of one or two views of normalised frames and of what `spectrogram` returns.

        In training mode all processes that share the batch must call it; in eval mode it is local.
        """
        encoder = self._shared if self.model.training else self._encoder
        views = [view.contiguous(memory_format=torch.channels_last) for view in views_B3HW]
        with self._autocast():
            images, audio, activation = encoder(views, spectrograms)
        return Embeddings(images[0], audio, activation, *images[1:])

    def share(self, peers: Peers) -> None:
        """Share the batches of training steps among processes; gradients are averaged."""
        if peers.size == 1:
            return
        self.peers = peers
        share_statistics(self.model, peers)
        self._shared = share_gradients(self._encoder)

    def encode_sound(self, sound_BN: Tensor, rate: int) -> Tensor:
        """`Embeddings.audio` of int16 or float waveforms: another sound for frames already encoded."""
        with self._exact(), self._autocast():
            return self.model.encode_audio(self.spectrogram(sound_BN, rate))

    def spectrogram(self, sound_BN: Tensor, rate: int) -> Tensor:
        """`Method.audio_input` of int16 or float waveforms, computed on the device."""
        sound = on_device(sound_BN, self.device)
        return self.model.audio_input(sound if sound.is_floating_point() else int16_to_float(sound), rate)

    def similarity(self, embeddings: Embeddings) -> Tensor:
        """Similarity maps [B, h, w]: cosines in [-1, 1]."""
        with self._exact():
            return self.model.similarity(embeddings)

    def training_step(self, batch: Batch, config: TrainConfig, generator: torch.Generator) -> dict[str, Tensor]:
        """Unweighted loss terms of one batch after augmentation.

        If processes share the batch, the mean over them is the term of the whole batch.

        Args:
            batch: padded uint8 frames, int16 sound and hints of this process.
            config: augmentation and loss weights.
            generator: CPU generator for the augmentation.
        """
        peers = self.peers.with_rows(len(batch.ids))
        side, augment = self.config.frame, config.augment

        def draw(columns: int) -> Tensor:
            return torch.rand((sum(peers.counts), columns), generator=generator)[peers.rows]

        def move(tensor: Tensor) -> Tensor:
            return on_device(tensor, self.device)

        drawn = [draw(3) for _ in range(self.model.views)]
        cut = [draw_crops(batch.sizes, side, augment.scale, augment.flip, uniform) for uniform in drawn]
        moved = [crops.to(self.device) for crops in cut]
        frames, sizes = move(batch.frames), move(batch.sizes)
        views = [
            self.model.augment(crop_frames(frames, sizes, crops), draw(self.model.augmentation_draws))
            for crops in moved
        ]
        views = [normalise_frames(view) for view in views]
        embeddings = self.encode(views, self.spectrogram(batch.sound, batch.rate))
        hints = batch.hints
        audio, visual = (None if each is None else move(each) for each in (hints.audio, hints.visual))
        if visual is not None and augment.map == "follow":
            visual = crop_maps(visual, moved[0])
        hints = replace(hints, audio=audio, visual=visual)
        height, width = embeddings.image.shape[2:]
        truth = supervise(batch, config.loss, cut[0], (height, width), peers)
        if batch.segments is not None:
            labels, mode = move(batch.segments), self.model.segment_mode
            truth = replace(truth, segments=[crop_labels(labels, crops, mode) for crops in moved])
        return self.model.losses(embeddings, hints, config.loss, truth, peers)

    @torch.inference_mode()
    def embed(self, frames_B3HW: Tensor, sound_BN: Tensor, rate: int) -> Embeddings:
        """Embeddings of square uint8 frames and waveforms, without gradients."""
        with self._exact():
            frames = normalise_frames(on_device(frames_B3HW, self.device))
            return self.encode([frames], self.spectrogram(sound_BN, rate))

    @torch.inference_mode()
    def predict(self, frames_B3HW: Tensor, sound_BN: Tensor, rate: int) -> Tensor:
        """Similarity maps [B, h, w] of square uint8 frames, each with its own sound."""
        return self.similarity(self.embed(frames_B3HW, sound_BN, rate))

    def _exact(self) -> AbstractContextManager[None]:
        """For prediction: fp32 means no TF32."""
        return full_float32() if (self.device.type, self.precision) == ("cuda", "fp32") else nullcontext()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class _Encoder(nn.Module):
    """Both encoders in one `forward`, for `DistributedDataParallel`."""

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Sequence[Tensor], spectrograms: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        encoded = [self.model.encode_image(view) for view in views]
        return [image for image, _ in encoded], self.model.encode_audio(spectrograms), encoded[0][1]


def weighted_total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Sum of the loss terms, each times its weight."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
