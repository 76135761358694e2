"""PANNs and DETR with random weights in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from avloc.networks.cnn14 import build_cnn14


def save_cnn14(path: Path) -> None:
    """Write a full-size Cnn14 in its authors' format, in half precision to save space."""
    torch.manual_seed(0)
    model = build_cnn14()
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    for key in ("spectrogram_extractor.stft.conv_real.weight", "spectrogram_extractor.stft.conv_imag.weight"):
        state[key] = model.state_dict()[key]
    torch.save({"iteration": 1, "model": state}, path)


def _random_detr(backbone: dict[str, Any], **settings: Any) -> Any:
    """A DETR of 91 classes on a ResNet whose last stage it takes."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    resnet = ResNetConfig(**backbone, out_features=["stage4"])
    return DetrForObjectDetection(
        DetrConfig(use_timm_backbone=False, backbone_config=resnet, num_labels=91, **settings)
    )


def save_detr(folder: Path) -> None:
    """Write a small DETR in the format of the Hugging Face hub; some of its queries are confident and some are not."""
    from transformers.utils import logging

    torch.manual_seed(4)
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    sizes = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32)
    model = _random_detr(resnet, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=12, **sizes)
    with torch.no_grad():
        model.class_labels_classifier.weight.normal_(std=0.6)
        model.model.query_position_embeddings.weight.normal_()
        for name, weight in model.model.named_parameters():
            if "attn" in name and name.endswith("weight") and weight.ndim == 2:
                weight.normal_(std=0.3)
    logging.disable_progress_bar()
    model.save_pretrained(folder)


def build_detr() -> torch.nn.Module:
    """DETR-R50 with random weights, in the settings of `facebook/detr-resnet-50`, revision `no_timm`.

    Attention is computed in explicit matrix products, as in `load_detr`.
    """
    resnet = {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}
    sizes = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    both = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in sizes.items()}
    model: torch.nn.Module = _random_detr(
        {**resnet, "layer_type": "bottleneck"}, d_model=256, num_queries=100, attn_implementation="eager", **both
    )
    return model.eval()


def save_whole_detr(folder: Path) -> None:
    """Write `build_detr` in the format of the Hugging Face hub; some of its queries are confident."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    detr = build_detr()
    with torch.no_grad():
        detr.class_labels_classifier.weight.normal_(std=0.6)
    detr.save_pretrained(folder)
