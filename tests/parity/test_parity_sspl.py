"""Front end, features, maps, losses and gradients of SSPL against numbers from the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avloc.config import LossWeights
from avloc.methods import Embeddings, HintBatch, any_class, build
from avloc.methods.vggish import attention
from avloc.networks.vggish import SoundVectors, log_mel_patches, normalise_span
from avloc.transforms import int16_to_float
from tests.parity import drawing
from tests.parity.comparing import TOLERANCE, check_gradients, close, tensors

HEAD_IN_TRAINING = 1e-3
"""Batch normalisation over four clips amplifies rounding errors."""
LOSS, GRADIENTS, FRONT_END = 1e-5, 1e-3, 1e-3


@pytest.fixture(scope="module", params=["pcm", "plain"])
def sspl(request):
    reference = drawing.vectors("sspl")
    seed = int(reference["seed"])
    files = {name: tensors(state) for name, state in drawing.weights_of_files("sspl_keys.json", seed).items()}
    if request.param == "plain":
        del files["pcm_best"]
    config, state = any_class("sspl").from_published(files)
    model = build(config)
    model.load_state_dict(state)
    return model, tensors(drawing.two_views(seed, 4)), reference, request.param


def embed(model, batch) -> Embeddings:
    first, activation = model.encode_image(batch["view1"])
    return Embeddings(first, model.encode_audio(batch["log_mel"]), activation, model.encode_image(batch["view2"])[0])


def check(model, batch, reference, case: str, mode: str) -> torch.Tensor:
    embeddings = embed(model, batch)
    loss = model.losses(embeddings, HintBatch(), LossWeights())["agreement"]
    assert abs(loss.item() - reference[f"{case}/{mode}_loss"].item()) < LOSS
    head = HEAD_IN_TRAINING if mode == "train" else TOLERANCE
    pooled = []
    for number, cells in ((1, embeddings.image), (2, embeddings.second)):
        maps = model.similarity(Embeddings(cells, embeddings.audio))
        name = f"{case}/{mode}_attention" + ("_view2" if number == 2 else "")
        close(attention(maps).detach(), reference[name], TOLERANCE)
        if number == 1:
            close(maps.detach(), reference[f"{case}/{mode}_map"], TOLERANCE)
        pooled.append(model.pooled(cells, embeddings.audio))
        prediction, projection = model.head(pooled[-1])
        close(prediction[:, :32].detach(), reference[f"{case}/{mode}_p{number}_head"], head)
        close(projection[:, :32].detach(), reference[f"{case}/{mode}_z{number}_head"], head)
    close(pooled[0].detach(), reference[f"{case}/{mode}_pooled"], TOLERANCE)
    if case == "pcm":
        aligned = model.aligned(embeddings.image, SoundVectors.unpack(embeddings.audio).embedding).detach()
        close(aligned[:, :4], reference[f"pcm/{mode}_features_head"], TOLERANCE)
        close(aligned.mean(1), reference[f"pcm/{mode}_features_channel_mean"], TOLERANCE)
        close(aligned.mean((2, 3)), reference[f"pcm/{mode}_features_cell_mean"], TOLERANCE)
    return loss


def test_parity_sspl_maps(sspl):
    model, batch, reference, case = sspl
    with torch.no_grad():
        check(model.eval(), batch, reference, case, "eval")
        embedded, transformed = model.sound(batch["log_mel"])
        close(embedded, reference["sound_embedding"], TOLERANCE)
        close(transformed[..., :64], reference["sound_transformed_head"], TOLERANCE)
        sound = SoundVectors.unpack(model.encode_audio(batch["log_mel"]))
        close(sound.embedding, reference["audio_embedding_normalised"], TOLERANCE)
        cells, activation = model.encode_image(batch["view1"])
        close(cells[:, :4], reference["frame_head"], TOLERANCE)
        close(cells.mean(1), reference["frame_channel_mean"], TOLERANCE)
        assert torch.equal(activation, cells.abs().mean(1))


def test_parity_sspl_losses_and_gradients(sspl, monkeypatch):
    """Run in double precision: in single precision, gradients differ by up to 0.3 % between CPUs."""
    model, batch, reference, case = sspl
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    exact = {name: value.double() for name, value in batch.items()}
    check(model.double().train(), exact, reference, case, "train").backward()
    model.to(torch.float32).load_state_dict(start)  # restores the running statistics
    norms = {name: reference[name] for name in reference if name.startswith(f"{case}/grad_norm/")}
    assert norms
    check_gradients(model, {ours(name, case): norm for name, norm in norms.items()}, GRADIENTS)


def ours(name: str, case: str) -> str:
    network, _, parameter = name.removeprefix(f"{case}/grad_norm/").partition(".")
    return f"grad_norm/{'head' if network == 'ssl_head' else network}.{parameter}"


@pytest.mark.parametrize("kind", ["long", "short"])
def test_parity_sspl_front_end(kind: str):
    """The middle 3 s of a clip, tiled if shorter, normalised by its own range."""
    reference = drawing.vectors("sspl")
    wave = int16_to_float(torch.from_numpy(reference[f"front_end/{kind}/wave_int16"]))
    wave = wave.repeat(-(-48_000 // len(wave))) if len(wave) < 48_000 else wave
    middle = wave[(len(wave) - 48_000) // 2 :][:48_000][None]
    sound = normalise_span(middle)
    assert np.abs(sound[0, ::16].numpy() - reference[f"front_end/{kind}/normalised_every_16th"]).max() < 1e-5
    patches = log_mel_patches(sound, 16_000)
    assert np.abs(patches[0].numpy() - reference[f"front_end/{kind}/log_mel"]).max() < FRONT_END
