"""Features per second."""

from __future__ import annotations

import numpy as np
import torch

from avloc.ave.teachers import Vgg19Teacher
from avloc.registry import StoreSpec
from avloc.transforms import normalise_frames
from avloc.weights import Located

CPU = torch.device("cpu")


def test_pictures_of_a_second_are_averaged(tiny_teachers):
    teacher = Vgg19Teacher(StoreSpec(seconds=2.0, rate=16_000), Located(path=None, hashes={}, verified=False), CPU)
    frames = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    (features,) = teacher.hints([frames])
    for second in range(2):
        own = torch.from_numpy(frames[16 * second : 16 * second + 16]).permute(0, 3, 1, 2)
        each = [teacher.model(normalise_frames(frame[None])).features[0] for frame in own]
        assert np.allclose(features[second], torch.stack(each).mean(0).permute(1, 2, 0).numpy(), atol=1e-4)
