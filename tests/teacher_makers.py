"""Teachers with random weights in the published layout, and stores as their input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avloc.media.pictures import encode_jpeg
from avloc.networks.cnn14 import build_cnn14
from avloc.registry import StoreSpec
from avloc.store import Clip, Store, StoreHeader, StoreWriter
from avloc.teachers.base import Teacher
from avloc.teachers.lite0 import Lite0Teacher
from avloc.teachers.yamnet import YamnetTeacher
from avloc.weights import CNN14, DETR, LITE0, YAMNET, locate
from tests.recipe_makers import save_lite0, save_yamnet, yamnet_layers

SECONDS = 1.0
RATE = 22_050
SOURCE_RATE = 44_100
CONCEPT_TEACHERS = ("yamnet", "lite0")


def saved_teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `--weights-dir` with all teachers, written once per test session."""
    folder = tmp_path_factory.getbasetemp() / "teacher-weights"
    if not folder.is_dir():
        folder.mkdir()
        save_cnn14(CNN14.under(folder))
        save_detr(DETR.under(folder))
        save_decided_yamnet(YAMNET.under(folder))
        save_decided_lite0(LITE0.under(folder))
    return folder


def save_cnn14(path: Path) -> None:
    """Write a full-size Cnn14 in its authors' format, in half precision to save space."""
    torch.manual_seed(0)
    model = build_cnn14()
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    for key in ("spectrogram_extractor.stft.conv_real.weight", "spectrogram_extractor.stft.conv_imag.weight"):
        state[key] = model.state_dict()[key]
    torch.save({"iteration": 1, "model": state}, path)


def save_detr(folder: Path) -> None:
    """Write a small DETR in the format of the Hugging Face hub; some of its queries are confident and some are not."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
    from transformers.utils import logging

    torch.manual_seed(4)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    sizes = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32)
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=12,
        num_labels=91,
        **sizes,
    )
    model = DetrForObjectDetection(config)
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
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[256, 512, 1024, 2048],
        depths=[3, 4, 6, 3],
        layer_type="bottleneck",
        out_features=["stage4"],
    )
    sizes = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        d_model=256,
        num_queries=100,
        num_labels=91,
        attn_implementation="eager",
        **{f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in sizes.items()},
    )
    model: torch.nn.Module = DetrForObjectDetection(config).eval()
    return model


def make_store(folder: Path, count: int, *, sources: bool = True, start: int = 0) -> Store:
    """Write `count` clips of noisy pictures and sounds; with `sources`, also the wave files that they were cut from."""
    header = StoreHeader(spec=StoreSpec(seconds=SECONDS, rate=RATE))
    with StoreWriter(folder, header, shard_clips=4) as writer:
        for number in range(start, start + count):
            writer.add(make_clip(number, folder.with_name("sounds") if sources else None))
    return Store(folder)


def make_clip(number: int, sounds: Path | None) -> Clip:
    """One clip; its window starts 0.5 s into a sound of 2 s."""
    random = np.random.default_rng(number)
    time = np.arange(2 * SOURCE_RATE) / SOURCE_RATE
    whole = (0.3 * np.sin(2 * np.pi * (300 + 170 * number) * time) + 0.05 * random.normal(size=time.size)).clip(-1, 1)
    path = ""
    if sounds is not None:
        sounds.mkdir(exist_ok=True)
        path = str(sounds / f"{number:03d}.wav")
        soundfile.write(path, whole, SOURCE_RATE)
    stored = whole[SOURCE_RATE // 2 :][: 2 * int(SECONDS * RATE) : 2]
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    return Clip(
        id=f"clip{number:03d}_000010",
        picture=encode_jpeg(np.kron(coarse, np.ones((16, 16, 1), np.uint8)), quality=90),
        sound=np.round(stored * 32_767).astype(np.int16),
        frame_hw=(96, 128),
        sound_source=path,
        source_bytes=Path(path).stat().st_size if path else 0,
        source_rate=SOURCE_RATE,
        window_s=0.5,
    )


def save_decided_yamnet(path: Path) -> None:
    """Write YAMNet in the published format, with scores on both sides of the threshold."""
    *layers, (kind, weight, scales, axis, bias) = yamnet_layers()
    bias = np.random.default_rng(8).normal(-5, 2, len(bias)).astype("f4")
    save_yamnet(path, [*layers, (kind, weight, scales, axis, bias)])


def save_decided_lite0(path: Path) -> None:
    """Write EfficientNet-Lite0 in the published format, with a classifier that is confident for some cells."""
    state = save_lite0(path)
    torch.save({**state, "_fc.weight": 4 * state["_fc.weight"]}, path)


def hints_of(teacher: Teacher, store: Store) -> list[np.ndarray | None]:
    """Hints of all clips of a store."""
    return teacher.hints([teacher.read(store.read(clip_id)) for clip_id in store.ids])


def concept_teacher(name: str, weights: Path) -> Teacher:
    """The YAMNet or Lite0 teacher with the weights of `saved_teachers`."""
    if name == "yamnet":
        return YamnetTeacher(
            StoreSpec(seconds=SECONDS, rate=RATE), locate(YAMNET, weights_dir=weights), torch.device("cpu")
        )
    return Lite0Teacher(locate(LITE0, weights_dir=weights), torch.device("cpu"))


def unit_reference(strengths: list[float], *nothing: float) -> np.ndarray:
    """A vector of length 1 by plain sums: strengths of the concepts, then the constants for none of them."""
    whole = np.array([*strengths, *nothing])
    return whole / np.sqrt(sum(value**2 for value in whole))
