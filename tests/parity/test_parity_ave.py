"""Probabilities, attention, losses and gradients of AVE, and its matching network, against the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avloc.ave.matching import AveMatch, distance
from avloc.ave.metrics import matched, nearest_windows, window_sums
from avloc.ave.networks import AVE, Features, of_clip
from avloc.weights.keras_files import load_keras
from tests.parity import drawing, drawing_events
from tests.parity.comparing import check_gradients, close, tensors
from tests.program import ROOT

TOLERANCE = 1e-5
MATCHING = ROOT.parent / "shared" / "data" / "ave" / "cmm_model_weights.h5"
needs_published_weights = pytest.mark.skipif(
    not MATCHING.is_file(), reason="the published weights are not beside the checkout"
)


@pytest.fixture(scope="module")
def reference():
    return drawing.vectors("ave")


@pytest.fixture(scope="module")
def drawn(reference):
    return {name: tensors(state) for name, state in drawing_events.weights(int(reference["seed"])).items()}


@pytest.fixture(scope="module")
def batch(reference) -> Features:
    clips = tensors(drawing_events.clips(int(reference["seed"]), 2))
    assert np.array_equal(np.eye(29)[clips["labels"]], reference["labels"])
    assert np.array_equal(np.eye(29)[clips["events"]], reference["video_label"])
    return Features(visual=clips["visual"], audio=clips["audio"], labels=clips["labels"], clips=clips["events"])


@pytest.mark.parametrize("name", ["AV_att", "DMRN", "AV_att_weak"])
def test_parity_ave(name, reference, drawn, batch):
    config, state = AVE.from_published({name: drawn[name]})
    model = AVE(config)
    model.load_state_dict(state)
    theirs = {key.removeprefix(f"{name}/"): reference[key] for key in reference if key.startswith(f"{name}/")}
    with torch.no_grad():
        predicted = model.predict(batch.visual, batch.audio)
        attended, attention = model.attend(batch.visual, batch.audio)
        audio_states, video_states = model.encode_time(attended, batch.audio)
    assert torch.equal(attention, predicted.attention)
    close(predicted.attention, theirs["attention"], TOLERANCE)
    for states, modality in ((audio_states, "audio"), (video_states, "video")):
        close(states[..., [*range(8), *range(128, 136)]], theirs[f"lstm_{modality}_head"], TOLERANCE)
    if config.own["weak"]:
        close(predicted.scores, theirs["segment_scores"], TOLERANCE)
        close(of_clip(predicted.scores).softmax(-1), theirs["video_probabilities"], TOLERANCE)
    else:
        close(predicted.probabilities, theirs["probabilities"], TOLERANCE)
    assert torch.equal(predicted.probabilities, predicted.scores.softmax(-1))
    (loss,) = model.losses(batch).values()
    close(loss.item(), theirs["loss"].item(), TOLERANCE)
    loss.backward()
    check_gradients(model, theirs, TOLERANCE)


@pytest.mark.parametrize("case", ["recipe", pytest.param("published", marks=needs_published_weights)])
def test_parity_matching(case, reference, drawn):
    pairs = drawing_events.pairs(int(reference["seed"]), 6)
    assert np.array_equal(pairs["event"], reference["cmm/event"])
    weights = load_keras(MATCHING) if case == "published" else drawn["cmm_model_weights"]
    config, state = AveMatch.from_published({"cmm_model_weights": weights})
    model = AveMatch(config)
    model.load_state_dict(state)
    theirs = {name.removeprefix(f"cmm/{case}/"): reference[name] for name in reference if f"cmm/{case}/" in name}
    scale = theirs["feature_scale"].item()
    visual, audio = (scale * torch.from_numpy(pairs[name]) for name in ("visual", "audio"))
    with torch.no_grad():
        image_vectors, audio_vectors = model.visual(visual), model.audio(audio)
        distances = distance(image_vectors[:, :, None], audio_vectors[:, None])
        cells = visual[:, :, None, None].expand(-1, -1, 7, 7, -1)
        labels = torch.from_numpy(np.where(pairs["event"], 3, 28))
        (loss,) = model.losses(Features(visual=cells, audio=audio, labels=labels)).values()
    own = distances.diagonal(dim1=1, dim2=2)
    close(own, theirs["distance"], TOLERANCE)
    close(distances, theirs["distance_visual_by_audio"], TOLERANCE)
    close(loss.item(), theirs["loss"].item(), TOLERANCE)
    assert (own.numpy()[~pairs["event"]] < 2.0).sum() == theirs["active_negatives"]
    check_search(distances.numpy(), pairs["event"], theirs)


def check_search(distances, event, theirs) -> None:
    for clip, sums in enumerate(map(window_sums, distances, event)):
        assert np.array_equal(np.isnan(sums), np.isnan(theirs["window_sums"][clip]))
        close(np.nan_to_num(sums), np.nan_to_num(theirs["window_sums"][clip]), TOLERANCE)
        assert np.array_equal(nearest_windows(sums), theirs["window_start"][clip])
        assert np.array_equal(matched(sums, event[clip]), theirs["correct"][clip])
