"""Object priors: maps by definition, independence of the batch, and errors for absent weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from avloc.errors import UsageError, WeightsAbsent
from avloc.networks.backbones import CONVNETS, TORCHVISION
from avloc.networks.detr import stretched
from avloc.networks.lite0 import Lite0
from avloc.priors import SIDE, DetrPrior, ObjectPrior
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.weights import DETR, Located, Weight, imagenet_weights, locate
from tests.teacher_weights import save_detr

CPU = torch.device("cpu")
NORMALISE = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

pytestmark = pytest.mark.usefixtures("offline")


def pictures(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Coloured blocks of unusual sizes, [H, W, 3]."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [np.kron(block, np.ones((16, 16, 1), np.uint8)) for block in blocks]


def frames_of(count: int, side: int, *, seed: int = 0) -> torch.Tensor:
    """uint8 frames [count, 3, side, side]."""
    squares = np.stack([stretched(picture, side) for picture in pictures(count, seed=seed)])
    return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


# --- ImageNet trunks ----------------------------------------------------------------------------------------------


def resnet_cells(network: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    stem = network.maxpool(network.relu(network.bn1(network.conv1(frames))))
    return network.layer4(network.layer3(network.layer2(network.layer1(stem))))


def shufflenet_cells(network: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    return network.conv5(network.stage4(network.stage3(network.stage2(network.maxpool(network.conv1(frames))))))


CELLS: dict[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {
    "resnet18": resnet_cells,
    "resnet34": resnet_cells,
    "resnet50": resnet_cells,
    "resnet101": resnet_cells,
    "vgg16": lambda network, frames: network.features(frames),
    "vgg19": lambda network, frames: network.features(frames),
    "efficientnet_b0": lambda network, frames: network.features(frames),
    "mobilenet_v3_small": lambda network, frames: network.features(frames),
    "shufflenet_v2_x0_5": shufflenet_cells,
    "efficientnet_lite0": lambda network, frames: network.trunk(frames),
}


def published(monkeypatch: pytest.MonkeyPatch, folder: Path, trunk: str) -> tuple[nn.Module, list[Weight]]:
    """Random weights in the published file's place; the whole network they belong to, and which ones were located."""
    torch.manual_seed(3)
    with torch.device("meta"):
        network = Lite0() if trunk == "efficientnet_lite0" else torchvision.models.get_model(trunk, weights=None)
    for part in ("classifier", "fc"):
        if hasattr(network, part):
            setattr(network, part, nn.Linear(1, 1, device="meta"))  # large, and not used by any prior
    network.to_empty(device="cpu").eval()
    for part in network.modules():
        if part is not network and hasattr(part, "reset_parameters"):
            part.reset_parameters()
    path = folder / f"{trunk}.pth"
    torch.save({key.removeprefix("trunk."): value for key, value in network.state_dict().items()}, path)
    located: list[Weight] = []

    def found(weight: Weight, **_more: object) -> Located:
        located.append(weight)
        return Located(path=path, hashes={path.name: hashlib.sha256(path.read_bytes()).hexdigest()}, verified=False)

    monkeypatch.setattr("avloc.priors.locate", found)
    return network, located


def test_every_trunk_is_tested() -> None:
    assert set(CELLS) == set(CONVNETS)


@pytest.mark.parametrize("trunk", CONVNETS)
def test_maps_are_the_mean_absolute_activation(trunk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, located = published(monkeypatch, tmp_path, trunk)
    prior = ObjectPrior(trunk, None, CPU)
    frames = frames_of(2, SIDE)
    maps = prior.maps(frames)
    assert maps.shape == (2, 7, 7)
    for found, frame in zip(maps, frames, strict=True):
        with torch.no_grad():
            features = CELLS[trunk](network, NORMALISE(frame / 255)[None])[0]
        reference = sum(channel.abs() for channel in features) / len(features)
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-6)
        assert found.std() > 0
    assert (prior.backbone, prior.side, located) == (trunk, 224, [imagenet_weights(trunk)])
    assert prior.sha256 == hashlib.sha256((tmp_path / f"{trunk}.pth").read_bytes()).hexdigest()


@pytest.mark.parametrize("trunk", ["resnet18", "efficientnet_b0"])
def test_the_map_of_a_frame_does_not_depend_on_the_rest_of_the_batch(
    trunk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, tmp_path, trunk)
    prior = ObjectPrior(trunk, None, CPU)
    frames = frames_of(5, SIDE)
    together, largest = prior.maps(frames), prior.maps(frames).max()
    # Kernels may round differently for another batch size or position in the batch.
    alone = torch.cat([prior.maps(frames[row : row + 1]) for row in range(5)])
    assert (together - alone).abs().max() <= 1e-5 * largest
    assert (together - prior.maps(frames.flip(0)).flip(0)).abs().max() <= 1e-5 * largest
    assert torch.equal(prior.maps(frames.to(memory_format=torch.channels_last)), together)  # Pillow's memory layout
    assert torch.equal(prior.maps(frames), together)


def test_a_flat_frame_has_a_finite_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch, tmp_path, "resnet18")
    maps = ObjectPrior("resnet18", None, CPU).maps(torch.full((1, 3, SIDE, SIDE), 255, dtype=torch.uint8))
    assert maps.isfinite().all()


@pytest.mark.parametrize("name", ["nonesuch", "", "resnet18:layer2", "alexnet"])
def test_unknown_trunks_are_refused_with_the_valid_ones(name: str) -> None:
    with pytest.raises(UsageError, match="unknown object prior") as caught:
        ObjectPrior(name, None, CPU)
    assert repr(name) in str(caught.value)
    for trunk in CONVNETS:
        assert trunk in str(caught.value)


@pytest.mark.parametrize("trunk", TORCHVISION)
def test_absent_weights_are_named_by_their_file(trunk: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsAbsent) as caught:
        ObjectPrior(trunk, tmp_path, CPU)
    url = torchvision.models.get_model_weights(trunk)["IMAGENET1K_V1"].url
    name = url.rpartition("/")[2]
    for text in (str(caught.value), caught.value.hint):
        assert name in text
        assert url in text
    assert str(tmp_path) in str(caught.value), "where it was looked for"
    assert str(tmp_path / "cache" / "avloc" / "weights" / name) in caught.value.hint, "where it goes"
    assert "--weights-dir" in caught.value.hint


# --- DETR ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_detr(DETR.under(folder))
    return folder


def highest_probabilities(prior: DetrPrior, frames: torch.Tensor) -> list[float]:
    """For each frame the probability of the most probable class of any query."""
    found = []
    for frame in frames:
        with torch.inference_mode():
            logits = prior.network(pixel_values=NORMALISE(frame / 255)[None]).logits[0]
        found.append(max(float(query.softmax(-1)[:-1].max()) for query in logits))
    return found


def test_the_detr_prior_equals_the_teacher(weights: Path) -> None:
    squares = [stretched(picture, 800) for picture in pictures(4)]
    frames = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    chances = sorted(highest_probabilities(DetrPrior(weights, CPU), frames))
    for confidence, expected in ((0.3, 4), ((chances[1] + chances[2]) / 2, 2), (0.9999, 0)):
        teacher = DetrTeacher(DetrSettings(confidence=confidence), locate(DETR, weights_dir=weights), CPU)
        prior = DetrPrior(weights, CPU, confidence=confidence)
        maps, hints = prior.maps(frames), teacher.hints(squares)
        assert prior.side == teacher.settings.side
        assert [one is None for one in maps] == [one is None for one in hints]
        both = [(found, hint) for found, hint in zip(maps, hints, strict=True) if found is not None]
        assert len(both) == expected
        for found, hint in both:
            assert found.shape == (25, 25)
            np.testing.assert_allclose(found.numpy(), hint, rtol=1e-4, atol=1e-8)


def test_the_detr_prior_has_the_teachers_settings_by_default(weights: Path) -> None:
    prior = DetrPrior(weights, CPU)
    assert (prior.confidence, prior.side) == (DetrSettings().confidence, DetrSettings().side) == (0.3, 800)
    assert prior.sha256 == locate(DETR, weights_dir=weights).sha256


def test_a_query_at_the_confidence_threshold_is_not_confident(weights: Path) -> None:
    """The paper writes >=, the published code >."""
    frames = frames_of(1, DetrPrior.side)
    (best,) = highest_probabilities(DetrPrior(weights, CPU), frames)
    assert DetrPrior(weights, CPU, confidence=best).maps(frames) == [None]
    just_below = float(np.nextafter(np.float32(best), np.float32(0)))
    (found,) = DetrPrior(weights, CPU, confidence=just_below).maps(frames)
    assert found is not None
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_detr_maps_do_not_depend_on_the_batch(weights: Path) -> None:
    prior = DetrPrior(weights, CPU)
    frames = frames_of(3, prior.side)
    alone = [prior.maps(frames[row : row + 1])[0] for row in range(3)]
    for together in (
        prior.maps(frames),
        prior.maps(frames.flip(0))[::-1],
        prior.maps(frames.to(memory_format=torch.channels_last)),
    ):
        for found, expected in zip(together, alone, strict=True):
            assert found is not None
            assert expected is not None
            assert torch.equal(found, expected)


def test_absent_detr_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsAbsent, match="detr-resnet-50/") as caught:
        DetrPrior(tmp_path, CPU)
    assert "https://huggingface.co/facebook/detr-resnet-50/resolve/no_timm/" in caught.value.hint
    assert "--weights-dir" in caught.value.hint


@pytest.mark.parametrize("confidence", [-0.1, 1.0, 1.5, float("nan")])
def test_invalid_confidence_is_refused(confidence: float, weights: Path) -> None:
    with pytest.raises(UsageError, match=r"confidence = .* impossible; valid"):
        DetrPrior(weights, CPU, confidence=confidence)


def test_resizing_to_a_square_is_bilinear_and_drops_the_aspect_ratio() -> None:
    (picture,) = pictures(1)
    expected = np.asarray(Image.fromarray(picture).resize((800, 800), Image.BILINEAR))
    np.testing.assert_array_equal(stretched(picture, DetrPrior.side), expected)
