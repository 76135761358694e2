"""Maps, losses and gradients of AVC and EZ-VSL against numbers from the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avloc.config import LossWeights, ModelConfig
from avloc.heatmap import resize
from avloc.methods import Embeddings, HintBatch, build
from avloc.networks.base import mean_activation
from avloc.transforms import int16_to_float, log_spectrogram
from tests.parity import drawing
from tests.parity.comparing import TOLERANCE, check_gradients, close, tensors


def network(method: str, dim: int, keys: str, seed: int):
    model = build(ModelConfig(method=method, dim=dim))
    drawn = drawing.weights(keys, seed)
    model.load_state_dict({key.removeprefix("module."): torch.from_numpy(value) for key, value in drawn.items()})
    return model


def embed(model, batch) -> Embeddings:
    return Embeddings(model.encode_image(batch["image"])[0], model.encode_audio(batch["spectrogram"]))


@pytest.fixture(scope="module")
def avc():
    reference = drawing.vectors("avc")
    seed = int(reference["seed"])
    return network("avc", 2048, "avc_keys.json", seed), tensors(drawing.hinted_batch(seed, 4)), reference


@pytest.fixture(scope="module")
def ezvsl():
    reference = drawing.vectors("ezvsl")
    seed = int(reference["seed"])
    return network("ezvsl", 512, "ezvsl_keys.json", seed), tensors(drawing.patchy_batch(seed, 4, 276)), reference


def test_parity_avc_maps(avc):
    model, batch, reference = avc
    with torch.no_grad():
        embeddings = embed(model.eval(), batch)
    maps = model.similarity(embeddings) / model.tau
    close(maps, reference["eval_maps"], TOLERANCE)
    close(embeddings.audio[:, :32], reference["eval_audio_head"], TOLERANCE)
    close(embeddings.image[:, :8], reference["eval_vision_head"], TOLERANCE)
    close(resize(maps, (224, 224))[:, ::16, ::16], reference["eval_heatmap_bilinear_224"], TOLERANCE)


def test_parity_avc_losses_and_gradients(avc):
    model, batch, reference = avc
    hints = HintBatch(
        audio=batch["audio_hint"],
        visual=batch["visual_hint"],
        visual_present=~batch["visual_hint"].isnan().flatten(1).any(1),
    )
    weights = LossWeights()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    terms = model.losses(embed(model.train(), batch), hints, weights)
    total = sum(getattr(weights, name) * term for name, term in terms.items())
    total.backward()
    model.load_state_dict(start)
    close(terms["contrastive"].item(), reference["train_contrastive"].item(), TOLERANCE)
    close(terms["audio_hint"].item(), reference["train_audio_mse"].item(), TOLERANCE)
    close(terms["visual_hint"].item(), reference["train_vision_mse"].item(), TOLERANCE)
    close(total.item(), reference["train_total"].item(), TOLERANCE)
    check_gradients(model, reference)


def test_parity_ezvsl_maps(ezvsl):
    model, batch, reference = ezvsl
    model.eval()
    with torch.no_grad():
        embeddings = embed(model, batch)
        close(model.similarity(embeddings) / model.tau, reference["eval_maps"], TOLERANCE)
        loss = model.losses(embeddings, HintBatch(), LossWeights())["contrastive"]
        close(loss.item(), reference["eval_loss"].item(), TOLERANCE)
        features = model.imgnet(batch["image"]).features
        close(model.img_proj(features)[:, :8], reference["eval_vision_projection_head"], TOLERANCE)
        pooled = model.audnet(batch["spectrogram"]).features.amax((2, 3))
        close(model.aud_proj(pooled)[:, :32], reference["eval_audio_projection_head"], TOLERANCE)
        close(mean_activation(features), reference["prior_maps"], TOLERANCE)


def test_parity_ezvsl_losses_and_gradients(ezvsl):
    model, batch, reference = ezvsl
    start = {key: value.clone() for key, value in model.state_dict().items()}
    embeddings = embed(model.train(), batch)
    loss = model.losses(embeddings, HintBatch(), LossWeights())["contrastive"]
    loss.backward()
    norm = model.audnet.bn1
    close(norm.running_mean[:16], reference["after_train/audnet.bn1.running_mean"], TOLERANCE)
    close(norm.running_var[:16], reference["after_train/audnet.bn1.running_var"], TOLERANCE)
    model.load_state_dict(start)
    close(model.similarity(embeddings).detach() / model.tau, reference["train_maps"], TOLERANCE)
    close(loss.item(), reference["train_loss"].item(), TOLERANCE)
    check_gradients(model, reference)


def test_parity_log_spectrogram():
    reference = drawing.vectors("avc")
    wave = int16_to_float(torch.from_numpy(reference["wave_int16"]))
    ours = log_spectrogram(wave[None], 22_050)[0, 0]
    assert ours.shape == (257, 276)
    assert np.abs(ours.numpy() - reference["log_spectrogram_over_12"]).max() <= 1e-5
