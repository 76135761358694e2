"""PANNs Cnn14 hears: an embedding of a clip's sound.

Shape letters: B batch, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from avloc.config import PANNS_SOUNDS
from avloc.errors import InputError, Refused, UsageError
from avloc.files import read_json_object
from avloc.media import read_sound
from avloc.networks.cnn14 import MIN_SAMPLES, RATE, WIDTH, embed, load_cnn14
from avloc.registry import StoreSpec
from avloc.store import TRACK, Clip, HintStamp, Store, hint_folder
from avloc.store.hints import STAMP
from avloc.teachers.base import Hint, in_slabs, stored_sound
from avloc.weights import CNN14, Located, Weight


@dataclass(frozen=True, kw_only=True)
class PannsSettings:
    """What changes the hints of PANNs."""

    normalise: bool = True
    """Embeddings of length 1, on the scale of the student's; False keeps them as Cnn14 gives them."""
    sound: str = "auto"
    """`source`: the file that the clip was made from, at full bandwidth; `store`: the sound in the store; `auto`
    decides, see `choose_sound`."""

    def __post_init__(self) -> None:
        if self.sound not in PANNS_SOUNDS:
            raise UsageError(f"sound = {self.sound!r} is impossible; valid: {', '.join(PANNS_SOUNDS)}")


class PannsTeacher:
    """Cnn14's embedding of a clip's window of sound, [2048].

    Args:
        settings: `sound` must be settled: `source` or `store`.
        spec: of the store that is heard.
        weights: Cnn14's, from `avloc.weights.locate`.
        device: where the network runs; float32 throughout.

    Raises:
        Refused: the clips of the store are too short for Cnn14.
    """

    name = "panns"
    weight: Weight = CNN14
    slab = 8

    def __init__(self, settings: PannsSettings, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if settings.sound == "auto":
            raise ValueError("sound is not settled; see choose_sound")
        self.settings = settings
        self.spec = spec
        self.weights = weights
        self.device = device
        if int(spec.seconds * RATE) < MIN_SAMPLES:
            raise Refused(f"clips of {spec.seconds} s are too short for PANNs, which needs {MIN_SAMPLES / RATE} s")

    @cached_property
    def model(self) -> nn.Module:
        """The network, loaded when first needed."""
        return load_cnn14(self.weights.path).to(self.device)

    def stamp(self) -> HintStamp:
        """Who answers, and how."""
        settings = {**asdict(self.settings), "rate": RATE, "seconds": self.spec.seconds}
        return HintStamp(teacher=self.name, shape=(WIDTH,), weights=self.weights.hashes, settings=settings)

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's window of sound, [seconds * 32000] in [-1, 1].

        Raises:
            InputError: the source file is to be heard, and is gone, changed or unreadable.
        """
        if self.settings.sound == "store":
            return stored_sound(clip, self.spec, RATE)
        if not source_is_there(clip.sound_source, clip.source_bytes):
            raise InputError(f"its sound's source is gone or was changed: {clip.sound_source or 'none is recorded'}")
        centre_s = clip.window_s + self.spec.seconds / 2
        path = Path(clip.sound_source)
        return read_sound(path, seconds=self.spec.seconds, rate=RATE, centre_s=centre_s).waveform

    def hints(self, batch: Sequence[NDArray[Any]]) -> list[Hint]:
        """Embeddings of length 1, or as they are if the settings say so; silence too has one."""
        return in_slabs(batch, self.slab, self._embedded)

    def _embedded(self, slab: NDArray[Any]) -> list[Hint]:
        embedding = embed(self.model, torch.from_numpy(slab).to(self.device))
        if self.settings.normalise:
            embedding = F.normalize(embedding, dim=1)
        return list(embedding.cpu().numpy())


def source_is_there(sound_source: str, source_bytes: int) -> bool:
    """Whether the file a clip's sound came from is still there, with the size it had."""
    try:
        return bool(sound_source) and Path(sound_source).stat().st_size == source_bytes
    except OSError:
        return False


def choose_sound(store: Store, asked: str) -> str:
    """Settle which sound PANNs hears, once for a whole store: `source` or `store`.

    Asked for `auto`, hints that are there already decide by their stamp, so that a later run goes on as the first one
    began. Else it is `source` if the source of every clip is still there, and `store` if one is not. The choice is
    never made clip by clip: hints of full and of cut bandwidth would lie in one folder, and which is which would
    depend on the day of the run. A source that goes away later makes its clip fail by name.
    """
    track = store.header.provenance.get(TRACK)
    if track is not None and asked == "source":
        raise UsageError(f"--sound source does not go with a store of sound track {track}; valid: store")
    if asked != "auto":
        return asked
    if track is not None:
        return "store"
    stamp = hint_folder(store.folder, PannsTeacher.name) / STAMP
    if stamp.is_file():
        settled = read_json_object(stamp).get("settings", {}).get("sound")
        if settled in PANNS_SOUNDS:
            return str(settled)
    sources = zip(store.column("sound_source"), store.column("source_bytes"), strict=True)
    return "source" if all(source_is_there(str(path), int(size)) for path, size in sources) else "store"
