"""The Lite0 teacher against a slow reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from avloc.errors import InputError
from avloc.media.pictures import decode_picture
from avloc.networks.concepts import CONCEPTS, DIM
from avloc.networks.lite0 import load_lite0
from avloc.store import Clip, Store
from avloc.transforms import normalise_frames
from avloc.weights import LITE0
from tests.teacher_makers import concept_teacher, hints_of, unit_reference

pytestmark = pytest.mark.usefixtures("no_hash_in_names")


def test_the_picture_teacher_against_a_slow_reference(store: Store, weights: Path) -> None:
    network = load_lite0(LITE0.under(weights))
    matrix, bias = network.head.weight.double().numpy(), network.head.bias.double().numpy()
    positive, zero = 0, 0
    counts = [max(1, len(concept.imagenet)) for concept in CONCEPTS]
    levels = [0.2 + 1.81 * norm.ppf(count / (count + 1)) for count in counts]
    for clip_id, hint in zip(store.ids, hints_of(concept_teacher("lite0", weights), store), strict=True):
        picture = Image.fromarray(decode_picture(store.read(clip_id).picture)).resize((224, 224), Image.BICUBIC)
        frame = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            features = network.trunk(normalise_frames(frame))[0].double().numpy()
        assert hint.shape == (DIM, 7, 7)
        for y, x in np.ndindex(7, 7):
            logits = matrix @ features[:, y, x] + bias
            logits = logits - sum(logits) / 1000
            best = [max((logits[number] for number in concept.imagenet), default=None) for concept in CONCEPTS]
            strengths = [
                0.0 if one is None else max(0.0, (one - level) / 2.5 - 1)
                for one, level in zip(best, levels, strict=True)
            ]
            np.testing.assert_allclose(hint[:, y, x], unit_reference(strengths, 16, 0), atol=1e-4)
            positive += sum(value > 0 for value in strengths)
            zero += sum(value == 0 for value in strengths)
    assert positive > 50
    assert zero > 50


def test_a_damaged_picture_is_a_failed_clip(weights: Path) -> None:
    clip = Clip(id="x", picture=b"no picture", sound=np.zeros(9, np.int16), frame_hw=(9, 9))
    with pytest.raises(InputError, match="picture"):
        concept_teacher("lite0", weights).read(clip)
