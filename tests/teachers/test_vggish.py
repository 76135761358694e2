"""The VGGish teacher against its network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avloc.errors import Refused, WeightsError
from avloc.networks.vggish import VGGish, load_vggish, log_mel_patches
from avloc.registry import StoreSpec
from avloc.store import Store
from avloc.teachers.vggish import VggishTeacher
from avloc.transforms import MEL_RATE
from avloc.weights import Located
from tests.teacher_makers import RATE, SECONDS, hints_of

CPU = torch.device("cpu")


@pytest.mark.slow
def test_vggish_gives_one_vector_of_length_1(tmp_path: Path, store: Store) -> None:
    """No hint for zero embeddings, which the final ReLU can produce."""
    torch.manual_seed(0)
    network, path = VGGish(), tmp_path / "vggish.pth"
    torch.save(network.state_dict(), path)
    located, spec = Located(path=path, hashes={path.name: "0"}, verified=False), StoreSpec(seconds=SECONDS, rate=RATE)
    tested = VggishTeacher(spec, located, CPU)
    assert (tested.stamp.shape, tested.stamp.teacher) == ((128,), "vggish")
    for clip_id, hint in zip(store.ids, hints_of(tested, store), strict=True):
        waveform = torch.from_numpy(tested.read(store.read(clip_id)))[None]
        slow = network.embed(log_mel_patches(waveform, MEL_RATE))[0].mean(0).detach().numpy()
        assert np.allclose(hint, slow / np.linalg.norm(slow), atol=1e-4)
    network.embeddings[4].bias.data.fill_(-1e6)
    torch.save(network.state_dict(), path)
    zeros = VggishTeacher(spec, located, CPU)
    assert zeros.hints([zeros.read(store.read(store.ids[0]))]) == [None]
    with pytest.raises(Refused, match="8000 Hz; VGGish needs"):
        VggishTeacher(StoreSpec(rate=8_000), located, CPU)
    torch.save({}, path)
    with pytest.raises(WeightsError, match="does not hold the weights of VGGish"):
        load_vggish(path)
