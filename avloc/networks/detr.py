"""DETR-R50 (Carion et al., 2020) through `transformers`, from local files, and its attention on objects.

Shape letters: B batch, Q object queries, A attention heads, C classes, H W pixels, h w cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from avloc.errors import UsageError, WeightsError
from avloc.files import read_json
from avloc.networks.base import fold_batch_norms
from avloc.transforms import normalise_frames

_TIMM_KEYS = ("backbone", "backbone_kwargs", "use_pretrained_backbone")

_NORM_EPS = 1e-5  # of DETR's frozen batch normalisation, written in its `forward`

CELL = 32  # pixels of a cell's side: the stride of the backbone
SIDE = 800  # pixels of the square that AVC stretches a frame to
CONFIDENCE = 0.3  # AVC's: queries whose best class is more probable are used


def check_confidence(value: float) -> None:
    """Raise UsageError unless `value` is in [0, 1)."""
    if not 0 <= value < 1:
        raise UsageError(f"confidence = {value!r} is impossible; valid: 0 or more, less than 1")


def load_detr(folder: Path) -> nn.Module:
    """DETR with published weights, frozen, in eval mode, on the CPU; see `_optimise`.

    `folder` has `config.json` and `model.safetensors` of a DETR whose backbone does not need `timm`.

    Raises:
        WeightsError: a file is absent or damaged, or holds another kind of model.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import DetrConfig, DetrForObjectDetection

    unfit = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError, StrictDataclassError)
    try:
        with _quiet():
            model, report = DetrForObjectDetection.from_pretrained(
                folder,
                config=DetrConfig.from_dict(_own_settings(folder)),
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except unfit as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{folder} does not hold a DETR that can be read: {reason}") from error
    # `transformers` would fill them with random numbers.
    if missing := sorted(report["missing_keys"]):
        first = ", ".join(missing[:3])
        raise WeightsError(f"{folder}/model.safetensors lacks {len(missing)} tensors of DETR: {first} ...")
    _optimise(model.float().eval().requires_grad_(requires_grad=False))
    return model  # type: ignore[no-any-return]


def _optimise(model: Any) -> None:
    """Make inference on frames without padding faster; outputs are equal up to rounding.

    The last cross-attention alone keeps explicit matrix products: `scaled_dot_product_attention` returns no weights.
    """
    from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

    for part in model.modules():
        if isinstance(part, DetrFrozenBatchNorm2d):
            part.eps = _NORM_EPS
        elif isinstance(part, nn.ReLU):
            part.inplace = True
    fold_batch_norms(model, DetrFrozenBatchNorm2d)
    _last_attention(model).config = copy(model.config)  # each attention looks up its kernel there
    model.config._attn_implementation = "sdpa"
    for part in (model.model.encoder, model.model.decoder):
        part.register_forward_pre_hook(_without_masks, with_kwargs=True)
    model.to(memory_format=torch.channels_last)


def _last_attention(model: Any) -> Any:
    """Cross-attention of the last decoder layer."""
    return model.model.decoder.layers[-1].encoder_attn


def _without_masks(_part: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Replace the attention masks of whole frames by None; on a GPU their values would have to be waited for."""
    return inputs, {name: None if name.endswith("attention_mask") else value for name, value in named.items()}


def _own_settings(folder: Path) -> dict[str, Any]:
    """`config.json` without its `timm` settings.

    Files of older versions of `transformers` hold a `timm` name, for which `transformers` would query the hub, or
    nulls, which it no longer accepts.
    """
    stated = read_json(folder / "config.json")
    if stated.get("model_type") != "detr":
        raise ValueError(f"config.json is of a model of type {stated.get('model_type')!r}")
    kept = {key: value for key, value in stated.items() if key not in _TIMM_KEYS and value is not None}
    by_timm = stated.get("use_timm_backbone", "backbone_config" not in kept)
    if by_timm or kept.get("backbone_config", {}).get("model_type") == "timm_backbone":
        raise ValueError("its backbone needs timm; take the revision no_timm")
    return {**kept, "use_timm_backbone": False}


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch off the progress bars and reports of `transformers`."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def stretched(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An RGB picture [H, W, 3] stretched to a square of `side` pixels: bilinear, antialiased.

    Source: AVC `test_N_times.py`, which resizes Pillow images with torchvision's default.
    """
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def attention_maps(model: nn.Module, frames_B3HW: Tensor, *, confidence: float) -> Tensor:
    """Attention of DETR on confidently detected objects; each map sums to 1.

    The last decoder layer's cross-attention, averaged over heads, then over the queries whose best class is more
    probable than `confidence` ("no object" is not a class). Frames are RGB squares in [0, 255], their side a multiple
    of 32.

    Returns:
        [B, H/32, W/32] float32; NaN for a frame without a confident query.

    Source: AVC `test_N_times.py`, which takes the confident queries of the first frame for all frames of a batch.
    """
    found: list[Tensor] = []
    hook = _last_attention(model).register_forward_hook(lambda _layer, _inputs, output: found.append(output[1]))
    try:
        logits = model(pixel_values=normalise_frames(frames_B3HW)).logits.float()
    finally:
        hook.remove()
    attention_BQN = found[0].float().mean(1)
    confident_BQ1 = (logits.softmax(-1)[..., :-1].amax(-1) > confidence).unsqueeze(-1)
    mean_BN: Tensor = (attention_BQN * confident_BQ1).sum(1) / confident_BQ1.sum(1)  # 0 / 0 is NaN
    side = math.isqrt(mean_BN.shape[1])
    return mean_BN.view(-1, side, side)
