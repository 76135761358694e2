"""Maps, soft masks, logits, losses and gradients of LVS against numbers from the published code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from avloc.config import LossWeights, ModelConfig
from avloc.distributed import ALONE
from avloc.losses import row_cross_entropy, soft_above, trimap_logits
from avloc.methods import Embeddings, HintBatch, Supervision, any_class, build
from tests.parity import drawing
from tests.parity.comparing import TOLERANCE, check_gradients, close, tensors

SOFT_MASKS = 5e-4
"""Tolerance of soft masks in training: the threshold's slope amplifies rounding errors about 30 times."""
GRADIENTS = 3e-3
HEAD = {"positive": 0.65, "negative": 0.4, "tau": 0.03, "temperature": 0.07, "legacy_diagonal": True}


@pytest.fixture(scope="module")
def lvs():
    reference = drawing.vectors("lvs")
    seed = int(reference["seed"])
    published = {"model_state_dict": tensors(drawing.weights("lvs_keys.json", seed)), "epoch": 3}
    config, state = any_class("lvs").from_published({"lvs_best": published})
    model = build(replace(config, own={"legacy_diagonal": True}))
    model.load_state_dict(state)
    return model, tensors(drawing.patchy_batch(seed, 4, 671)), reference


def check(model, batch, reference, mode: str, tolerance: float) -> torch.Tensor:
    audio_features = model.audnet(batch["spectrogram"]).features
    image_features = model.imgnet(batch["image"]).features
    embeddings = Embeddings(F.normalize(image_features, dim=1), F.normalize(audio_features.amax((2, 3)), dim=1))
    if mode == "eval":
        assert tuple(audio_features.shape) == tuple(reference["eval_audio_grid_shape"])
        close(image_features[:, :4].detach(), reference["eval_vision_head"], TOLERANCE)
        close(audio_features.amax((2, 3))[:, :32].detach(), reference["eval_audio_head"], TOLERANCE)
        assert torch.equal(embeddings.image, model.encode_image(batch["image"])[0])
        assert torch.equal(embeddings.audio, model.encode_audio(batch["spectrogram"]))
    maps = model.similarity(embeddings)
    close(maps.detach(), reference[f"{mode}_maps"], TOLERANCE)
    close(soft_above(maps, 0.65, 0.03).detach(), reference[f"{mode}_positive_weight"], tolerance)
    close(1 - soft_above(maps, 0.4, 0.03).detach(), reference[f"{mode}_negative_weight"], tolerance)
    logits = trimap_logits(embeddings.image, embeddings.audio, **HEAD)
    close(logits.detach(), reference[f"{mode}_logits"], TOLERANCE)
    return model.losses(embeddings, HintBatch(), LossWeights())["contrastive"]


def test_parity_lvs_maps(lvs):
    model, batch, reference = lvs
    with torch.no_grad():
        loss = check(model.eval(), batch, reference, "eval", TOLERANCE)
    close(loss.item(), reference["eval_loss"].item(), TOLERANCE)


def test_parity_lvs_without_its_trimap(lvs):
    model, batch, reference = lvs
    with torch.no_grad():
        image, audio = model.eval().encode_image(batch["image"])[0], model.encode_audio(batch["spectrogram"])
    logits = trimap_logits(image, audio, **{**HEAD, "negative": HEAD["positive"]})
    close(logits, reference["eval_logits_without_trimap"], TOLERANCE)


def test_parity_lvs_losses_and_gradients(lvs):
    model, batch, reference = lvs
    start = {key: value.clone() for key, value in model.state_dict().items()}
    loss = check(model.train(), batch, reference, "train", SOFT_MASKS)
    loss.backward()
    model.load_state_dict(start)
    close(loss.item(), reference["train_loss"].item(), TOLERANCE)
    check_gradients(model, reference, GRADIENTS, {"audnet.conv1_a.weight": "audnet.conv1.weight"})


def test_parity_lvs_head(lvs):
    _, _, reference = lvs
    features = tensors(drawing.related_features(int(reference["seed"]), 4, 14))
    vision, audio = (features[name].requires_grad_() for name in ("vision", "audio"))
    image, sound = F.normalize(vision, dim=1), F.normalize(audio, dim=1)
    maps = torch.einsum("bdhw,bd->bhw", image, sound).detach()
    close(maps, reference["head_maps"], TOLERANCE)
    close(soft_above(maps, 0.65, 0.03), reference["head_positive_weight"], TOLERANCE)
    close(1 - soft_above(maps, 0.4, 0.03), reference["head_negative_weight"], TOLERANCE)
    logits = trimap_logits(image, sound, **HEAD)
    close(logits.detach(), reference["head_logits"], TOLERANCE)
    without = trimap_logits(image, sound, **{**HEAD, "negative": HEAD["positive"]})
    close(without.detach(), reference["head_logits_without_trimap"], TOLERANCE)
    each = torch.stack([row_cross_entropy(row[None], torch.zeros(1, dtype=torch.long)) for row in logits])
    close(each.detach(), reference["head_loss_per_image"], TOLERANCE)
    each[:3].mean().backward()
    close(vision.grad.flatten(1).norm(dim=1), reference["grad_norm/head_vision"], GRADIENTS)
    close(audio.grad.norm(dim=1), reference["grad_norm/head_audio"], GRADIENTS)


def test_a_sound_is_not_a_negative_of_its_own_picture(lvs):
    """The published code multiplies it by -99: a negative similarity to its own sound becomes a large logit."""
    _, _, reference = lvs
    features = tensors(drawing.related_features(int(reference["seed"]), 4, 14))
    image, sound = F.normalize(features["vision"], dim=1), F.normalize(features["audio"], dim=1)
    theirs = trimap_logits(image, sound, **HEAD)
    ours = trimap_logits(image, sound, **{**HEAD, "legacy_diagonal": False})
    assert theirs[3, 4] > 100, "the last picture's own sound, which does not match it"
    assert torch.isinf(ours[:, 1:5].diagonal()).all()
    off = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(ours[:, 1:5][off], theirs[:, 1:5][off])


def test_masked_pairs_and_clips_are_excluded(lvs):
    _, _, reference = lvs
    features = tensors(drawing.related_features(int(reference["seed"]), 4, 14))
    embeddings = Embeddings(F.normalize(features["vision"], dim=1), F.normalize(features["audio"], dim=1))
    model = build(ModelConfig(method="lvs", dim=512, seconds=10.0, rate=16_000))
    relation = torch.tensor([[1, 0, -1, -1], [0, 1, -1, -1], [-1, -1, 1, -1], [-1, -1, -1, -1]], dtype=torch.int8)
    loss = model.contrast(embeddings, relation, ALONE)
    logits = trimap_logits(embeddings.image, embeddings.audio, **{**HEAD, "legacy_diagonal": False})
    keep = [[0, 3, 4, 5], [0, 3, 4, 5], [0, 1, 2, 4, 5]]  # own source, other sounds, background
    slow = [-torch.log_softmax(logits[row, keep[row]], 0)[0] for row in range(3)]
    assert loss.item() == pytest.approx(torch.stack(slow).mean().item(), rel=1e-5)
    weights = LossWeights(same_class="masked")
    assert model.losses(embeddings, HintBatch(), weights, Supervision(relation=relation))["contrastive"] == loss
